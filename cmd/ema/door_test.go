package main

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"ema/internal/model"
)

func TestNoDownloadBeginsWhileSomethingIsRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d door
		tiny, other := model.ID{Name: "acme/tiny"}, model.ID{Name: "acme/other"}
		leave, err := d.enter(t.Context(), tiny)
		if err != nil {
			t.Fatal(err)
		}
		busy, open, err := d.shut(t.Context())
		if err != nil || !busy[tiny] || busy[other] {
			t.Fatalf("busy are %v, %v", busy, err)
		}
		entered := make(chan struct{})
		go func() {
			if leave, err := d.enter(t.Context(), other); err == nil {
				leave()
			}
			close(entered)
		}()
		synctest.Wait()
		select {
		case <-entered:
			t.Error("a download begins while something is removed")
		default:
		}
		leave()
		open()
		<-entered
		busy, open, err = d.shut(t.Context())
		if err != nil || len(busy) != 0 {
			t.Errorf("busy are %v after all have left, %v", busy, err)
		}
		open()
	})
}

func TestRemovalsWaitForEachOtherAndNotForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d door
		_, open, err := d.shut(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		failed := make(chan error, 2)
		go func() {
			_, _, err := d.shut(ctx)
			failed <- err
		}()
		go func() {
			_, err := d.enter(ctx, model.ID{Name: "acme/tiny"})
			failed <- err
		}()
		synctest.Wait()
		cancel()
		for range 2 {
			if err := <-failed; !errors.Is(err, context.Canceled) {
				t.Errorf("gives up with %v", err)
			}
		}
		second := make(chan func())
		go func() {
			_, open, err := d.shut(t.Context())
			if err != nil {
				t.Error(err)
			}
			second <- open
		}()
		synctest.Wait()
		open()
		(<-second)()
	})
}
