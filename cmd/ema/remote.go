package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"ema/client"
	"ema/internal/model"
	"ema/internal/pipeline"
	"ema/internal/store"
)

// remote finds the daemon that is to do the work: the one that --server or EMA_SERVER names, or the owner of the store.
func (a *app) remote(ctx context.Context) (*client.Client, bool, error) {
	server := a.named()
	if server == "" {
		return a.owner(ctx)
	}
	key := a.getenv("EMA_API_KEY")
	c, err := client.New(server, client.Options{Key: key})
	if err != nil {
		return nil, false, err
	}
	if _, err := c.Version(ctx); err != nil {
		if e, ok := errors.AsType[*client.Error](err); ok && e.Status == http.StatusUnauthorized {
			why := "it lets nobody in without a key"
			if key != "" {
				why = "the key in EMA_API_KEY is not one of its keys"
			}
			err = &model.Error{Op: "ask the daemon", Class: model.Auth, URL: server, Err: errors.New(why), Hint: "put one of its auth.api_keys into EMA_API_KEY"}
		}
		return nil, false, err
	}
	return c, true, nil
}

// named is the URL of the daemon that somebody has named; empty when nobody has. The daemon itself asks no other one.
func (a *app) named() string {
	if a.within != nil {
		return ""
	}
	return cmp.Or(a.server, a.getenv("EMA_SERVER"))
}

// owner finds the daemon that owns the store of the settings. Within the daemon itself there is none to be found.
func (a *app) owner(ctx context.Context) (*client.Client, bool, error) {
	if a.within != nil {
		return nil, false, nil
	}
	s, err := a.stored()
	if err != nil {
		return nil, false, err
	}
	c := client.Local(s.StateDir())
	switch _, err := c.Version(ctx); {
	case errors.Is(err, client.ErrNoDaemon):
		return nil, false, nil
	case err != nil:
		return nil, false, err
	}
	return c, true, nil
}

// stateOf is the state that a download's status names.
func stateOf(d client.Download) model.State { return model.State(strings.ToLower(d.Status)) }

// stored is the store that the settings name.
func (a *app) stored() (*store.Store, error) {
	e, err := a.settings()
	if err != nil {
		return nil, err
	}
	set, err := storeSettings(e.Config)
	if err != nil {
		return nil, err
	}
	return store.New(set), nil
}

// daemon is the daemon that a command can't do without.
func (a *app) daemon(ctx context.Context, op string) (*client.Client, error) {
	c, found, err := a.remote(ctx)
	if err == nil && !found {
		err = a.noDaemon(op)
	}
	return c, err
}

// noDaemon says that none runs, and how to start one.
func (a *app) noDaemon(op string) error {
	s, err := a.stored()
	if err != nil {
		return err
	}
	return &model.Error{Op: op, Err: fmt.Errorf("%w on the store %s", client.ErrNoDaemon, s.Path()), Hint: "start one with: " + a.serveLine()}
}

// serveLine is the command line that starts the daemon which this one looked for.
func (a *app) serveLine() string {
	words := []string{"ema", "serve"}
	if a.configFile != "" {
		words = append(words, "--config", a.configFile)
	}
	if a.storeDir != "" {
		if dir, err := filepath.Abs(a.storeDir); err == nil {
			words = append(words, "--store", dir)
		}
	}
	return shellLine(words)
}

// byOwner makes cmd run inside the daemon when one owns the store: only the owner may change it.
func (a *app) byOwner(cmd *cobra.Command) *cobra.Command {
	here := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, found, err := a.remote(cmd.Context())
		switch {
		case err != nil:
			return err
		case !found:
			return here(cmd, args)
		}
		return a.forward(cmd.Context(), c)
	}
	return cmd
}

// forward has this command line executed by the daemon. What it prints, and how it ends, is as if it were done here.
func (a *app) forward(ctx context.Context, c *client.Client) error {
	command := client.Command{Args: a.args}
	if f, ok := a.stderr.(interface{ Fd() uintptr }); ok && interactive(a.stderr) && a.getenv("TERM") != "dumb" {
		if columns, _, err := term.GetSize(int(f.Fd())); err == nil {
			command.Columns = columns
		}
	}
	code, err := c.Run(ctx, command, a.stdout, a.stderr)
	if err != nil || code == 0 {
		return err
	}
	return &reportedError{&model.Error{Op: "run in the daemon", Class: classOfExit(code), Err: fmt.Errorf("exit code %d", code)}}
}

// classOfExit is a class that leads to that exit code.
func classOfExit(code int) model.Class {
	switch code {
	case 2:
		return model.Usage
	case 3:
		return model.NotFound
	case 4:
		return model.Integrity
	case 5:
		return model.DiskFull
	case 130:
		return model.Cancelled
	}
	return model.Other
}

// pullRemote has the daemon bring a model, and shows how that stands until it is here. Whoever stops watching does not
// stop the download.
func (a *app) pullRemote(ctx context.Context, c *client.Client, req pipeline.Request, f pullFlags) error {
	events, err := c.Events(ctx, client.Interest{Model: req.ID.String()}) // before it begins, so that nothing is missed
	if err != nil {
		return err
	}
	defer events.Close() // nothing is lost by it
	start := client.Manage{
		Action: "start", Model: req.ID.String(), Revision: req.Revision, Include: req.Select.Include, Exclude: req.Select.Exclude,
		Priority: f.priority, Connections: f.connections,
	}
	if f.limit > 0 {
		start.LimitMBps = &f.limit
	}
	begun, err := c.Manage(ctx, start)
	if err != nil {
		return err
	}
	d := begun.Downloads[0]
	show := a.watchRemote(req.ID, d)
	if begun.Existing {
		show.say(fmt.Sprintf("%s: the daemon has this download already, %s", show.name, stateOf(d)))
	}
	if f.detach {
		return a.detached(show, d)
	}
	show.start()
	d, err = follow(ctx, c, events, req.ID, d, show)
	show.stop()
	if err != nil {
		if ctx.Err() != nil {
			return a.unwatched(req.ID)
		}
		again := "is started again with: " + a.serveLine()
		if server := a.named(); server != "" {
			again = "at " + model.Redact(server) + " is there again"
		}
		return fmt.Errorf("pull %s: %w; the download goes on when the daemon %s", req.ID.Public(), err, again)
	}
	return a.arrived(ctx, show, req, d)
}

// detached says that the download goes on without us.
func (a *app) detached(show *remoteProgress, d client.Download) error {
	if a.json {
		return a.printJSON(d)
	}
	name := shellWord(show.name)
	show.say(fmt.Sprintf("%s: %s in the daemon; see it with \"ema ps\", cancel it with \"ema cancel %s\"", show.name, stateOf(d), name))
	return nil
}

// unwatched says what a Ctrl-C has not stopped.
func (a *app) unwatched(id model.ID) error {
	name := shellWord(id.Public())
	return &model.Error{
		Op: "pull", Class: model.Cancelled, Model: id, Err: errors.New("no longer watched, but the download goes on in the daemon"),
		Hint: fmt.Sprintf("see it with \"ema ps\", cancel it with \"ema cancel %s\"", name),
	}
}

// follow shows a download until it is over.
func follow(ctx context.Context, c *client.Client, events *client.Events, id model.ID, d client.Download, show *remoteProgress) (client.Download, error) {
	for !d.Over() {
		e, err := events.Next()
		if err != nil {
			// Whoever is slow to read is cut off, which is no reason to give up while there is a daemon.
			again, gone := c.Events(ctx, client.Interest{Model: id.String()})
			if gone != nil {
				return d, err
			}
			defer again.Close() // nothing is lost by it
			events, e = again, client.Event{DownloadID: d.ID, Change: &client.ChangeEvent{}}
		}
		switch {
		case e.DownloadID != d.ID:
		case e.Progress != nil:
			show.moved(*e.Progress)
		case e.Change != nil: // the record says more than the event
			if d, err = c.Progress(ctx, id.String(), d.ID); err != nil {
				return d, err
			}
			show.changed(d)
		}
	}
	return d, nil
}

// arrived prints the path of a model that the daemon has brought, or why it has not.
func (a *app) arrived(ctx context.Context, show *remoteProgress, req pipeline.Request, d client.Download) error {
	if err := d.Err(); err != nil {
		return err
	}
	res := &pipeline.Result{
		ID: req.ID, Model: req.ID.Public(), Revision: d.Revision, Commit: d.Commit, Path: d.Path,
		Files: d.Files, Bytes: model.Bytes(d.TotalBytes),
	}
	if r := d.Result; r != nil {
		res.Revision, res.Files, res.Seconds, res.Notes = r.Revision, r.Files, r.Seconds, r.Notes
		res.Bytes, res.Fetched = model.Bytes(r.Bytes), model.Bytes(r.Fetched)
		res.Took = time.Duration(r.Seconds * float64(time.Second))
	}
	if req.To != "" {
		if err := a.export(ctx, req, d.Commit); err != nil {
			return err
		}
		res.Path = req.To
	}
	for _, note := range res.Notes {
		a.note(req.ID, note)
	}
	show.say(pulled(res))
	return a.result(res, func(w io.Writer) error {
		_, err := fmt.Fprintln(w, res.Path)
		return err
	})
}

// export puts the files of a revision that is here into a plain folder. That needs no owner.
func (a *app) export(ctx context.Context, req pipeline.Request, commit string) error {
	s, err := a.stored()
	if err != nil {
		return err
	}
	rec, err := s.Record(req.ID, commit)
	if err != nil {
		return err
	}
	wanted, err := req.Select.Of(rec.Files)
	if err != nil {
		return err
	}
	_, err = s.Export(ctx, req.ID, commit, wanted, req.To)
	return err
}

// A remoteProgress shows a download of the daemon with the bars of one's own.
type remoteProgress struct {
	*progress
	stage  stageCell
	paused bool
}

// watchRemote makes the progress of a download that the daemon does.
func (a *app) watchRemote(id model.ID, d client.Download) *remoteProgress {
	r := &remoteProgress{progress: a.watch(id)}
	r.stageNow = r.stage.get
	r.changed(d)
	return r
}

// moved shows how a running download stands.
func (r *remoteProgress) moved(p client.ProgressEvent) {
	r.stand(p.Stage, p.DownloadedBytes, p.TotalBytes, p.Files, p.FilesDone, p.Connections)
	if p.Note != "" {
		r.progress.progress.Note.Store(p.Note)
	}
}

// changed shows a new state of a download, and says what a person should hear.
func (r *remoteProgress) changed(d client.Download) {
	stage := d.Stage
	if stage == "" {
		stage = string(stateOf(d))
	}
	r.stand(stage, d.DownloadedBytes, d.TotalBytes, d.Files, d.FilesDone, d.Connections)
	switch {
	case stateOf(d) == model.Paused && !r.paused && d.PausedBy == string(model.ByUser):
		r.tell(fmt.Sprintf("%s: paused; resume it with: ema resume %s", r.name, shellWord(r.name)))
	case stateOf(d) == model.Paused && !r.paused:
		r.tell(fmt.Sprintf("%s: paused%s", r.name, because(d.Reason)))
	case stateOf(d) == model.Retrying:
		r.say(fmt.Sprintf("%s: will be tried again%s", r.name, because(d.Reason)))
	}
	r.paused = stateOf(d) == model.Paused
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + strings.TrimSuffix(reason, ".")
}

func (r *remoteProgress) stand(stage string, done, total int64, files, filesDone, connections int) {
	p := r.progress.progress
	r.stage.set(pipeline.Stage{Name: stage, Files: files, Bytes: model.Bytes(total)})
	p.Written.Store(done)
	p.Received.Store(done)
	p.Hashed.Store(done)
	p.FilesDone.Store(int64(filesDone))
	p.Connections.Store(int64(connections))
	p.LastByte.Store(time.Now().UnixNano())
}

// A stageCell holds the stage of a download that another process does. It is safe for concurrent use.
type stageCell struct {
	now atomic.Pointer[pipeline.Stage]
}

func (c *stageCell) set(s pipeline.Stage) { c.now.Store(&s) }

func (c *stageCell) get() pipeline.Stage {
	if s := c.now.Load(); s != nil {
		return *s
	}
	return pipeline.Stage{}
}
