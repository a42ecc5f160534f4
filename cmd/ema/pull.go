package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"ema/client"
	"ema/internal/config"
	"ema/internal/host"
	"ema/internal/model"
	"ema/internal/pipeline"
)

// pullFlags are the flags of ema pull.
type pullFlags struct {
	include, exclude []string
	connections      int
	to               string
	dryRun           bool
	offline          bool
	priority         string
	limit            float64 // MiB per second; 0 is none
	detach           bool

	here   bool           // on this machine, whichever daemon is named
	client *client.Client // of the daemon that does the work; nil when it is done here
}

func pullCommand(a *app) *cobra.Command {
	var f pullFlags
	cmd := &cobra.Command{
		Use:   "pull MODEL[@REV]...",
		Short: "Bring models here and print their paths",
		Long: "Brings models here, complete and verified, and prints the path of each on a line of its own when it is available.\n" +
			"MODEL is org/name on the hub, the https:// URL of a file or of a list of files, or file:///folder.\n" +
			"REV is a branch, a tag or a commit. What is here already is not fetched again, and what an interrupted pull\n" +
			"has left goes on from where it stopped. When a model fails, the next one is tried all the same.\n" +
			"When a daemon runs on this store (ema serve), it does the work, and Ctrl-C only stops watching.\n" +
			"With --server another daemon does it: the model is brought to its machine, and the path is one there.",
		Example: "  ema pull org/name\n" +
			"  vllm serve \"$(ema pull org/name@v1.0)\"\n" +
			"  ema pull org/name --include '*.safetensors' --include '*.json' --exclude 'original/*'\n" +
			"  ema pull org/name --limit 20\n" +
			"  ema pull org/name --dry-run",
		Args:              someModels,
		ValidArgsFunction: a.completeHere,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.pull(cmd.Context(), args, f)
		},
	}
	flags := cmd.Flags()
	flags.StringArrayVar(&f.include, "include", nil, "only files whose path matches this `glob`; may be repeated")
	flags.StringArrayVar(&f.exclude, "exclude", nil, "no files whose path matches this `glob`; may be repeated")
	flags.IntVar(&f.connections, "connections", 0, "most connections at once (default: connection_settings.max_connections_per_host)")
	flags.StringVar(&f.to, "to", "", "also put the files into this plain `folder`, and print its path")
	flags.BoolVar(&f.dryRun, "dry-run", false, "only say what would be fetched, and whether it fits")
	flags.Float64Var(&f.limit, "limit", 0, "most `MiB` per second for this download")
	flags.StringVar(&f.priority, "priority", "", "in the daemon's queue: `low`, normal, high or critical")
	flags.BoolVar(&f.detach, "detach", false, "queue it in the daemon and return")
	flags.BoolVar(&f.offline, "offline", false, "use no network: only what is here already")
	return cmd
}

// pull brings models one after the other. Of several failures the first one decides the exit code.
func (a *app) pull(ctx context.Context, args []string, f pullFlags) error {
	if f.connections != 0 {
		a.connections = strconv.Itoa(f.connections)
	}
	requests, err := f.requests(args)
	if err != nil {
		return err
	}
	if f.client, err = a.worker(ctx, f); err != nil {
		return err
	}
	return eachOf(ctx, a, requests, func(req pipeline.Request) error { return a.pullOne(ctx, req, f) })
}

// worker finds the daemon that is to do the work, if there is one. What needs no change of the store, or only what is here,
// is done in this process.
func (a *app) worker(ctx context.Context, f pullFlags) (*client.Client, error) {
	switch {
	case f.here:
		c, _, err := a.owner(ctx)
		return c, err
	case a.named() != "" && (f.dryRun || f.offline || f.to != ""):
		return nil, &model.Error{Op: "pull", Class: model.Usage, Err: errors.New("--dry-run, --offline and --to are about this machine, and --server or EMA_SERVER names another"), Hint: "leave out one or the other"}
	case f.detach && (f.dryRun || f.offline || f.to != ""):
		return nil, &model.Error{Op: "pull", Class: model.Usage, Err: errors.New("--detach returns before there is a result, so it goes with none of --dry-run, --offline and --to")}
	case f.detach:
		return a.daemon(ctx, "pull --detach")
	case f.dryRun || f.offline:
		return nil, nil
	}
	c, _, err := a.remote(ctx)
	return c, err
}

// requests reads the whole command line before anything is done, so that a typing error costs nothing.
func (f pullFlags) requests(args []string) ([]pipeline.Request, error) {
	if f.to != "" && len(args) > 1 {
		return nil, &model.Error{Op: "pull", Class: model.Usage, Err: errors.New("--to takes the files of one model only"), Hint: "name one model"}
	}
	if _, err := model.ParsePriority(f.priority); err != nil {
		return nil, &model.Error{Op: "pull", Class: model.Usage, Err: fmt.Errorf("--priority: %w", err)}
	}
	if f.limit < 0 || f.limit > 1e6 || f.limit != f.limit {
		return nil, &model.Error{Op: "pull", Class: model.Usage, Err: fmt.Errorf("--limit: %v MiB/s is not between 0 and 1000000", f.limit), Hint: "0 is no limit"}
	}
	var all []pipeline.Request
	for _, arg := range args {
		id, rev, err := model.ParseRef(arg)
		if err != nil {
			return nil, &model.Error{Op: "pull", Class: model.Usage, Err: err}
		}
		req := pipeline.Request{ID: id, Revision: rev, Select: pipeline.Selection{Include: f.include, Exclude: f.exclude}}
		if f.to != "" {
			if req.To, err = filepath.Abs(f.to); err != nil {
				return nil, fmt.Errorf("--to %s: %w", f.to, err)
			}
		}
		all = append(all, req)
	}
	return all, nil
}

// pullOne brings one model and prints its path.
func (a *app) pullOne(ctx context.Context, req pipeline.Request, f pullFlags) (err error) {
	if f.client != nil {
		return a.pullRemote(ctx, f.client, req, f)
	}
	show := a.watch(req.ID)
	l, err := a.line("ema pull "+req.ID.Public(), f.offline, show.waiting)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	for _, w := range l.settings.Warnings {
		if w.Key == fewerConnections { // the others are for who writes a configuration: "ema doctor" has them
			l.log.Warn("configuration", "key", w.Key, "warning", w.Text)
		}
	}
	if f.dryRun {
		plan, err := l.Plan(ctx, req, show.progress)
		if err != nil {
			return err
		}
		return a.printPlan(req, plan)
	}
	limited, unlimit, err := l.limited(ctx, model.Bytes(f.limit*float64(model.MiB)), show.progress)
	if err != nil {
		return err
	}
	req.Limit = limited
	waits := func(host string, err error, wait time.Duration) {
		show.progress.Note.Store(fmt.Sprintf("waiting for %s: %v", host, err))
	}
	l.waits.Store(&waits)
	show.start()
	from := l.look(ctx, host.New("", a.processors()))
	begun := time.Now()
	res, err := l.Pull(ctx, req, show.progress)
	l.timed(ctx, a, req.ID, from, show.progress, f.limit*float64(model.MiB))
	unlimit()
	show.stop()
	l.done(ctx, "pull", req.ID, begun, err, "revision", req.Revision, "fetched", show.progress.Received.Load(), "retries", show.progress.Retries.Load())
	if err != nil {
		if ctx.Err() != nil {
			return a.interrupted("pull", req.ID, show)
		}
		return err
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

// pulled is the last line about a model that is available.
func pulled(res *pipeline.Result) string {
	if res.Fetched == 0 {
		return fmt.Sprintf("%s: %s in %s, all here already", res.Model, res.Bytes, files(res.Files))
	}
	return fmt.Sprintf("%s: %s in %s (%s/s), verified", res.Model, res.Fetched, duration(res.Took), rateOf(res.Fetched, res.Took))
}

// interrupted says what a stopped command leaves, and how to go on.
func (a *app) interrupted(op string, id model.ID, show *progress) error {
	kept := ""
	if now := show.read(time.Now()); now.done > 0 && now.total > 0 {
		kept = fmt.Sprintf("; %s of %s are here and are kept", now.done, now.total)
	}
	return &model.Error{
		Op: op, Class: model.Cancelled, Model: id, Err: errors.New("interrupted" + kept),
		Hint: "go on with: " + a.again(),
	}
}

// again is the command line that goes on with this one, without the secrets that a signed link carries.
func (a *app) again() string {
	words := []string{"ema"}
	for _, w := range a.args {
		if address, query, found := strings.Cut(w, "?"); found && query != "" && strings.Contains(address, "://") {
			w = address + "?…"
		}
		words = append(words, w)
	}
	return shellLine(words)
}

// A planAnswer is what --dry-run --json prints.
type planAnswer struct {
	Model    string `json:"model"`
	Revision string `json:"revision"`
	Commit   string `json:"commit"`
	*pipeline.Plan
	Fits bool `json:"fits"`
}

// printPlan prints what a pull would do; a plan that does not fit on the disk is an error of class DiskFull.
func (a *app) printPlan(req pipeline.Request, p *pipeline.Plan) error {
	need := p.Missing - p.Partial
	short := need + p.Reserve - p.Free
	answer := planAnswer{
		Model: req.ID.Public(), Revision: p.Manifest.Revision, Commit: p.Manifest.Commit,
		Plan: p, Fits: need == 0 || short <= 0,
	}
	err := a.result(answer, func(w io.Writer) error {
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "FILE\tSIZE\tSTATE")
		for _, f := range p.Files {
			state := "to fetch"
			if f.Here {
				state = "here"
			}
			fmt.Fprintf(t, "%s\t%s\t%s\n", f.Path, f.Size, state)
		}
		if err := t.Flush(); err != nil {
			return err
		}
		_, err := fmt.Fprintln(w, planSummary(answer))
		return err
	})
	if p.Warning != "" {
		a.note(req.ID, p.Warning)
	}
	if err == nil && !answer.Fits {
		return &model.Error{
			Op: "pull", Class: model.DiskFull, Model: req.ID,
			Err:  fmt.Errorf("it would not fit: %s to fetch and %s to leave free, but only %s are free, %s too few", need, p.Reserve, p.Free, short),
			Hint: `see what could go with "ema gc --dry-run" and "ema ls"`,
		}
	}
	return err
}

// planSummary is the last line of a dry run.
func planSummary(p planAnswer) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s at %.12s: %s, %s", p.Model, p.Commit, files(len(p.Files)), p.Bytes)
	if p.Missing == 0 {
		b.WriteString(", all here")
	} else {
		fmt.Fprintf(&b, "; to fetch %s", p.Missing-p.Partial)
		if p.Partial > 0 {
			fmt.Fprintf(&b, " (%s more are here from a pull that was interrupted)", p.Partial)
		}
	}
	fmt.Fprintf(&b, "; free %s, of which %s stay free", p.Free, p.Reserve)
	return b.String()
}

// connectionSettings are the settings that --connections makes: the number holds for one host and for all together.
func connectionSettings(n string) []config.Setting {
	if n == "" {
		return nil
	}
	return []config.Setting{
		{Key: "connection_settings.max_connections_per_host", Value: n, Where: "--connections"},
		{Key: "connection_settings.connection_pool_size", Value: n, Where: "--connections"},
	}
}
