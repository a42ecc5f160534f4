package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"

	"ema/client"
)

// A model is asked for, and followed until it is there. Asking for one that is on its way already is no mistake.
func Example() {
	daemon := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch {
		case r.URL.Path == client.Base+"/models/download/manage":
			_, _ = io.WriteString(w, `{"success":true,"downloads":[{"download_id":"dl_1","model_id":"acme/tiny","status":"QUEUED"}]}`)
		case r.URL.Path == client.Base+"/events":
			w.Header().Set("Content-Type", "application/x-ndjson")
			_, _ = io.WriteString(w, `{"seq":1,"type":"state","download_id":"dl_1","state":{"old_status":"VERIFYING","new_status":"COMPLETED"}}`+"\n")
		default:
			_, _ = io.WriteString(w, `{"download_id":"dl_1","model_id":"acme/tiny","status":"COMPLETED","path":"/models/acme/tiny"}`)
		}
	}))
	defer daemon.Close()

	ctx := context.Background()
	c, err := client.New(daemon.URL, client.Options{Key: "ema_0123"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	events, err := c.Events(ctx, client.Interest{Model: "acme/tiny"}) // before it begins, so that nothing is missed
	if err != nil {
		fmt.Println(err)
		return
	}
	defer events.Close()
	begun, err := c.Manage(ctx, client.Manage{Action: "start", Model: "acme/tiny"})
	if err != nil {
		fmt.Println(err)
		return
	}
	d := begun.Downloads[0]
	for !d.Over() {
		e, err := events.Next()
		if err != nil {
			fmt.Println(err)
			return
		}
		if e.DownloadID != d.ID || e.Change == nil {
			continue
		}
		if d, err = c.Progress(ctx, d.Model, d.ID); err != nil {
			fmt.Println(err)
			return
		}
	}
	if err := d.Err(); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(d.Path)
	// Output: /models/acme/tiny
}

// What the daemon refuses is an Error, with a code for programs and a sentence for people.
func ExampleError() {
	daemon := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusConflict)
		_, _ = io.WriteString(w, `{"error":{"code":"WRONG_STATE","message":"pause acme/tiny: it is completed","details":{"class":"other","state":"COMPLETED"}}}`)
	}))
	defer daemon.Close()

	c, err := client.New(daemon.URL, client.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	_, err = c.Manage(context.Background(), client.Manage{Action: "pause", Model: "acme/tiny"})
	if e, ok := errors.AsType[*client.Error](err); ok && e.Code == client.WrongState {
		fmt.Println(e.State, "-", e)
	}
	// Output: COMPLETED - pause acme/tiny: it is completed
}
