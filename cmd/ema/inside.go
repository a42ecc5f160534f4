package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"ema/client"
	"ema/internal/model"
)

// execute runs one of the commands that need the store's owner, for a process that is not.
func (d *daemon) execute(ctx context.Context, c client.Command, stdout, stderr io.Writer) int {
	d.mu.Lock()
	settings := d.settings
	d.mu.Unlock()
	inner := &app{
		stdin: strings.NewReader(""), stdout: stdout, stderr: stderr, columns: c.Columns, environ: d.app.environ,
		effective: settings, within: d.line, changed: d.stored, metrics: d.metrics, cpus: d.app.cpus,
		examined: d.clinic.examined, mended: d.clinic.mended,
	}
	root := rootCommand(inner)
	cmd, args, err := root.Find(c.Args)
	name := ""
	if err == nil {
		name = cmd.Name()
	}
	switch name {
	case "verify":
		defer d.line.own.begin(model.ID{})()
	case "repair":
		defer d.line.own.begin(model.ID{})()
		for _, arg := range args {
			if id, _, err := model.ParseRef(arg); err == nil { // what is no model the command itself refuses
				leave, err := d.door.enter(ctx, id)
				if err != nil {
					return 130
				}
				defer leave()
			}
		}
	case "rm", "gc", "rebuild", "adopt":
		busy, open, err := d.door.shut(ctx)
		if err != nil {
			return 130
		}
		defer open()
		if name == "gc" || name == "rebuild" { // what an unfinished one has fetched is no garbage, however long ago that was
			for _, dl := range d.queue.List() {
				busy[dl.Model] = true
			}
		}
		inner.busy = busy
	default:
		fmt.Fprint(stderr, "ema: the daemon executes verify, repair, rm, gc, store rebuild and store adopt, and nothing else\n")
		return 2
	}
	defer d.heap.work()()
	d.log.Info("command", "name", name) // and not its arguments: people do pass signed links
	return execute(ctx, inner, root, c.Args)
}
