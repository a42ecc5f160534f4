package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"ema/internal/demohub"
)

// control answers below /_ for whoever runs the hub, and leaves the rest to the hub.
func control(hub *demohub.Hub) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, "/_") {
			hub.ServeHTTP(w, r)
			return
		}
		switch r.Method + " " + r.URL.Path {
		case "GET /_stats":
			reply(w, hub.Stats())
		case "GET /_log":
			reply(w, hub.Log())
		case "POST /_reset":
			hub.ResetStats()
		case "DELETE /_fault":
			hub.ClearFaults()
		case "POST /_fault", "POST /_next":
			if err := arm(hub, r.URL.Path == "/_next", r.URL.Query()); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
			}
		default:
			http.Error(w, "there are GET /_stats, GET /_log, POST /_reset, POST /_fault, POST /_next and DELETE /_fault", http.StatusNotFound)
		}
	})
}

// arm sets what the query asks for, or nothing when a part of it is wrong.
func arm(hub *demohub.Hub, next bool, q url.Values) error {
	var faults []demohub.Fault
	for _, text := range q["fault"] {
		f, err := demohub.ParseFault(text)
		if err != nil {
			return err
		}
		faults = append(faults, f)
	}
	if len(faults) == 0 {
		return fmt.Errorf("say which: fault=NAME or fault=NAME=ARGS")
	}
	if next {
		hub.Next(faults...)
		return nil
	}
	match := demohub.Match{Kind: demohub.Kind(q.Get("kind")), Method: q.Get("method"), Path: q.Get("path")}
	switch match.Kind {
	case "", demohub.API, demohub.Resolve, demohub.Bulk:
	default:
		return fmt.Errorf("kind %q: want api, resolve or bulk", match.Kind)
	}
	times := 0
	if text := q.Get("times"); text != "" {
		var err error
		if times, err = strconv.Atoi(text); err != nil || times < 1 {
			return fmt.Errorf("times %q: want a number from 1; leave it out for always", text)
		}
	}
	for _, f := range faults {
		hub.Fault(match, f, times)
	}
	return nil
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	_ = json.NewEncoder(w).Encode(v) // a client that has gone needs no answer
}
