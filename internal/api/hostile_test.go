package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"ema/internal/api/trust"
)

// junk draws JSON that is seldom what is wanted, and sometimes no JSON.
func junk() *rapid.Generator[string] {
	return rapid.OneOf(
		rapid.SampledFrom([]string{
			`null`, `true`, `-1`, `1e308`, `-1e308`, `1e400`, `9223372036854775808`, `0.1`, `""`, `"\ud800"`, "\"\xff\xfe\"", `[]`, `{}`, `[[]]`,
			`{"a":{"b":[1,2,{}]}}`, `"a/b"`, `"../../etc"`, `"https://h/f?x=1"`, `"start"`, `{`, `]`, ``, "\x00", `"` + strings.Repeat("x", 5000) + `"`,
			strings.Repeat("[", 500) + strings.Repeat("]", 500), strings.Repeat("[", 20000), strings.Repeat(`{"a":`, 11000) + "1" + strings.Repeat("}", 11000),
		}),
		rapid.Custom(func(t *rapid.T) string {
			raw, err := json.Marshal(rapid.String().Draw(t, "text"))
			if err != nil {
				t.Fatal(err)
			}
			return string(raw)
		}),
		rapid.Custom(func(t *rapid.T) string { return fmt.Sprint(rapid.Float64().Draw(t, "number")) }),
	)
}

// fitting draws a value that the schema of a field allows.
func fitting(field map[string]any) *rapid.Generator[string] {
	if enum, ok := field["enum"].([]any); ok {
		return rapid.Custom(func(t *rapid.T) string {
			raw, err := json.Marshal(rapid.SampledFrom(enum).Draw(t, "one of"))
			if err != nil {
				t.Fatal(err)
			}
			return string(raw)
		})
	}
	switch field["type"] {
	case "boolean":
		return rapid.SampledFrom([]string{"true", "false"})
	case "integer", "number":
		return rapid.SampledFrom([]string{"0", "1", "7"})
	case "array":
		return rapid.SampledFrom([]string{`[]`, `["*.json"]`})
	}
	return rapid.SampledFrom([]string{`"acme/going"`, `"acme/here"`, `"acme/new"`, `"main"`})
}

// bodyOf draws a body for an operation: mostly an object of its fields, some of them wrong, some unknown, some missing.
func bodyOf(t *rapid.T, fields map[string]map[string]any) string {
	if rapid.IntRange(0, 9).Draw(t, "no object") == 0 {
		return junk().Draw(t, "body")
	}
	names := make([]string, 0, len(fields)+3)
	for name := range fields {
		names = append(names, name)
	}
	slices.Sort(names)
	names = append(names, "modle_id", "ACTION", "")
	var b strings.Builder
	b.WriteByte('{')
	for i, name := range rapid.SliceOfN(rapid.SampledFrom(names), 0, 8).Draw(t, "fields") {
		value := fitting(fields[name])
		if rapid.IntRange(0, 2).Draw(t, "wrong") == 0 {
			value = junk()
		}
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "%q:%s", name, value.Draw(t, name))
	}
	b.WriteByte('}')
	return b.String()
}

// fieldsOf are the fields of an operation's body.
func fieldsOf(t *testing.T, op *documented) map[string]map[string]any {
	t.Helper()
	if op.Body == nil {
		return nil
	}
	ref, ok := op.Body.Content["application/json"].Schema["$ref"].(string)
	if !ok {
		return nil
	}
	var doc struct {
		Components struct {
			Schemas map[string]struct {
				Properties map[string]map[string]any
			}
		}
	}
	if err := json.Unmarshal(document(t), &doc); err != nil {
		t.Fatal(err)
	}
	return doc.Components.Schemas[ref[strings.LastIndexByte(ref, '/')+1:]].Properties
}

// pathOf draws a path to an operation, with what its parameters may and may not be.
func pathOf(t *rapid.T, op *documented) string {
	segment := rapid.OneOf(
		rapid.SampledFrom([]string{"acme/here", "acme/going", "acme%2Fhere", "a/b/c", "", "..", "%2e%2e", "%00", "%ff", "x", "https%3A%2F%2Fh%2Ff", "%25"}),
		rapid.Custom(func(t *rapid.T) string { return url.PathEscape(rapid.String().Draw(t, "segment")) }),
	)
	path := op.path
	query := url.Values{}
	for _, p := range op.Parameters {
		switch p.In {
		case "path":
			path = strings.ReplaceAll(path, "{"+p.Name+"}", segment.Draw(t, p.Name))
		case "query":
			if rapid.Bool().Draw(t, "with "+p.Name) {
				query.Set(p.Name, rapid.OneOf(
					rapid.SampledFrom([]string{"", "1", "0", "-1", "100", "101", "99999999999999999999", "1e3", "asc", "model_id", "x", "\x00", "\xff", "dl_1"}), rapid.String(),
				).Draw(t, p.Name))
			}
		}
	}
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	return path
}

func TestNothingThatStrangersSendBreaksTheServer(t *testing.T) {
	ops := slices.DeleteFunc(operations(t), func(op *documented) bool {
		return op.ID == opProfile || op.ID == opProfiles || op.ID == opProfileCPU || op.ID == opProfileHeap || op.ID == opProfileTrace || op.ID == opLive // they answer with other things than JSON
	})
	fields := map[string]map[string]map[string]any{}
	for _, op := range ops {
		fields[op.ID] = fieldsOf(t, op)
	}
	s, _, _ := whole(t)
	h := s.Handler()
	rapid.Check(t, func(rt *rapid.T) {
		op := ops[rapid.IntRange(0, len(ops)-1).Draw(rt, "operation")]
		path := pathOf(rt, op)
		u, err := url.ParseRequestURI(path)
		if err != nil {
			return // net/http answers that
		}
		method := op.method
		if rapid.IntRange(0, 9).Draw(rt, "other method") == 0 {
			method = rapid.SampledFrom([]string{"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "X"}).Draw(rt, "method")
		}
		body := bodyOf(rt, fields[op.ID])
		r := (&http.Request{
			Method: method, URL: u, RequestURI: path, Host: "daemon", Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}, RemoteAddr: "127.0.0.1:9",
			Body: http.NoBody,
		}).WithContext(trust.With(t.Context(), trust.Identity{Role: trust.Admin}))
		r.Body = readCloser{strings.NewReader(body)}
		for name, values := range map[string][]string{
			"Content-Type":  {"", "", "", "application/json", "application/json; charset=utf-8", "text/plain", "x", ";", "a;b+c", "application/cbor"},
			"Accept":        {"", "*/*", "text/html", "application/cbor", "x;q=y", ","},
			"If-None-Match": {"", "*", `"x"`, "x"},
			"Range":         {"", "bytes=9-1", "bytes=0-0"},
		} {
			if v := rapid.SampledFrom(values).Draw(rt, name); v != "" {
				r.Header.Set(name, v)
			}
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		res := w.Result()
		switch {
		case res.Header.Get("X-Request-Id") == "":
			rt.Fatalf("%s %s: no X-Request-Id", method, path)
		case res.StatusCode >= 500:
			rt.Fatalf("%s %s %.300q: %s\n%s", method, path, body, res.Status, w.Body)
		case res.StatusCode >= 400 && method == http.MethodHead: // it has no body
		case res.StatusCode >= 400:
			var e envelope
			if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil || e.Error.Code == "" || e.Error.RequestID != res.Header.Get("X-Request-Id") || res.Header.Get("Content-Type") != "application/json" {
				rt.Fatalf("%s %s %.300q: %s is no envelope: %v\n%s", method, path, body, res.Status, err, w.Body)
			}
			if res.StatusCode == http.StatusUnprocessableEntity && len(e.Error.Details.Fields) == 0 {
				rt.Fatalf("%s %s %.300q: no field is blamed\n%s", method, path, body, w.Body)
			}
			if res.StatusCode == http.StatusMethodNotAllowed && res.Header.Get("Allow") == "" {
				rt.Fatalf("%s %s: 405 without Allow", method, path)
			}
		case res.StatusCode >= 300 && res.StatusCode != http.StatusNotModified:
			rt.Fatalf("%s %s: %s", method, path, res.Status)
		case method == op.method && res.StatusCode == http.StatusOK:
			fits(t, op, res, w.Body.Bytes())
		}
	})
}

type readCloser struct{ *strings.Reader }

func (readCloser) Close() error { return nil }

func TestAllMistakesAreToldAtOnceEachWithItsPath(t *testing.T) {
	s, _, _ := whole(t)
	for body, want := range map[string][]string{
		`{"modle_id":"a/b","action":"stop","priority":"urgent","max_retries":-1,"include":"x"}`: {"action", "include", "max_retries", "model_id", "modle_id", "priority"},
		`{"model_id":"a/b/c","action":"prioritize","revision":"a b"}`:                           {"model_id", "priority", "revision"},
		`{"model_id":"a/b","action":"start","include":["x",7]}`:                                 {"include[1]"},
		`[]`: {""},
	} {
		res := ask(t, s.Handler(), trust.Admin, "POST", Base+"/models/download/manage", body)
		e := no(t, res)
		var paths []string
		for _, f := range e.Details.Fields {
			paths = append(paths, f.Path)
			if f.Message == "" {
				t.Errorf("%s: %s without why", body, f.Path)
			}
		}
		if body == `[]` {
			paths = slices.DeleteFunc(paths, func(p string) bool { return p != "" })
		}
		if res.StatusCode != http.StatusUnprocessableEntity || !slices.Equal(paths, want) {
			t.Errorf("%s: %s, %q: %s", body, res.Status, paths, e.Message)
		}
		if strings.Contains(body, "modle_id") && !strings.Contains(e.Message, `there is no field "modle_id"; did you mean model_id?`) {
			t.Error(e.Message)
		}
	}
}

func TestMistakesInSettingsAreAllTold(t *testing.T) {
	s, _, _ := whole(t)
	e := no(t, ask(t, s.Handler(), trust.Admin, "PUT", Base+"/config/update", `{"wrong":1}`))
	if len(e.Details.Fields) != 2 || e.Details.Fields[0].Path != "download.a" || e.Details.Fields[0].Value != "-1" ||
		e.Details.Fields[0].Message != "it is too small; want 1 or more" || e.Details.Fields[1].Message != "there is no such key; did you mean download.b?" {
		t.Errorf("%+v", e)
	}
	var v struct {
		Valid    bool
		Mistakes []struct{ Key, Nearest string }
	}
	read(t, ask(t, s.Handler(), trust.Admin, "POST", Base+"/config/validate", `{"wrong":1}`), &v)
	if v.Valid || len(v.Mistakes) != 2 || v.Mistakes[1].Nearest != "download.b" {
		t.Errorf("%+v", v)
	}
}
