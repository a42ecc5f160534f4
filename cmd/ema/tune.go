package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"ema/internal/config"
	"ema/internal/ledger"
	"ema/internal/model"
	"ema/internal/tune"
)

// A tuning is the command line of ema tune.
type tuning struct {
	app       *app
	only      string
	root      string
	editFstab bool
	yes       bool
	force     bool
}

func tuneCommand(a *app) *cobra.Command {
	t := &tuning{app: a}
	check := func(cmd *cobra.Command, _ []string) error { return t.check(cmd.Context()) }
	cmd := &cobra.Command{
		Use:   "tune",
		Short: "Compare the operating system's settings with what suits models; apply advice, take it back",
		Long: "Compares settings of the network, of memory, disks, processors, mounts and PostgreSQL with what is advised for this\n" +
			"machine, and changes nothing. Only what exists here is advised, and a limit that is higher already stays. Nothing is ever\n" +
			"applied but by \"ema tune apply\".",
		Example: "  ema tune\n  sudo ema tune apply --only sysctl,scheduler\n  sudo ema tune rollback",
		Args:    noSuchCommand,
		RunE:    check,
	}
	flags := cmd.PersistentFlags()
	flags.StringVar(&t.only, "only", "", "only these `areas`, separated by commas: sysctl, scheduler, governor, mount, postgres")
	flags.StringVar(&t.root, "root", "/", "`folder` that is taken for the root of the machine's files")
	cobra.CheckErr(cmd.RegisterFlagCompletionFunc("only", cobra.FixedCompletions([]string{"sysctl", "scheduler", "governor", "mount", "postgres"}, cobra.ShellCompDirectiveNoFileComp)))
	apply := &cobra.Command{
		Use: "apply", Short: "Set what is advised, now and for good, with a backup of what was there",
		Long: "Shows what it would set and what that risks, and asks. Then it keeps what is there in the store's state folder, sets the\n" +
			"running values, and writes files of its own so that they hold after the next start too. It needs root; only PostgreSQL needs\n" +
			"no more than a superuser of its own in database.url.",
		Example: "  sudo ema tune apply\n  sudo ema tune apply --only mount --edit-fstab --yes",
		RunE:    func(cmd *cobra.Command, _ []string) error { return t.apply(cmd.Context()) },
	}
	apply.Flags().BoolVar(&t.editFstab, "edit-fstab", false, "also add noatime to the line in /etc/fstab of the file system of the models")
	apply.Flags().BoolVar(&t.yes, "yes", false, "do not ask")
	rollback := &cobra.Command{
		Use: "rollback", Short: "Put back exactly what was there before the first apply",
		Long: "Puts back what was there before the first apply, also after one that was interrupted. What somebody else has changed since\n" +
			"then is named, and nothing is put back unless --force says so. It needs root; only PostgreSQL does not.",
		Example: "  sudo ema tune rollback\n  sudo ema tune rollback --only governor",
		RunE:    func(cmd *cobra.Command, _ []string) error { return t.rollback(cmd.Context()) },
	}
	rollback.Flags().BoolVar(&t.force, "force", false, "put back also what somebody else has changed since")
	cmd.AddCommand(&cobra.Command{
		Use: "check", Short: "Compare the settings with what is advised", Example: "  ema tune check --json | jq '.settings[] | select(.status == \"advised\")'",
		RunE: check,
	}, apply, rollback)
	return cmd
}

// A tuneAnswer is what ema tune tells, in JSON.
type tuneAnswer struct {
	Root     string         `json:"root"`
	Settings []tune.Setting `json:"settings"`
	Backup   tuneBackup     `json:"backup"`
	Changed  []string       `json:"changed,omitempty"` // by apply
}

// A tuneBackup is where it is kept what was there before.
type tuneBackup struct {
	Folder string    `json:"folder"`
	Made   time.Time `json:"made,omitzero"` // zero when there is none
}

// A restoredAnswer is what ema tune rollback has done, in JSON.
type restoredAnswer struct {
	Root     string   `json:"root"`
	Restored []string `json:"restored"`
	Kept     []string `json:"kept"`
	Gone     []string `json:"gone"`
}

// A tunable is what is looked at, and changed.
type tunable struct {
	machine *tune.Machine
	cluster *tune.Cluster // nil where no PostgreSQL is asked
	server  *ledger.Server
	problem string // why none is, though database.url names one
	areas   []tune.Area
	answer  tuneAnswer
}

func (u *tunable) close() error {
	if u.server == nil {
		return u.machine.Close()
	}
	return errors.Join(u.machine.Close(), u.server.Close())
}

// open opens the machine and its store's backup of it, and the PostgreSQL server that the machine uses, if these areas are asked for.
func (t *tuning) open(ctx context.Context) (*tunable, error) {
	areas, err := tune.ParseAreas(t.only)
	if err != nil {
		return nil, err
	}
	e, err := t.app.settings()
	if err != nil {
		return nil, err
	}
	s, err := t.app.store()
	if err != nil {
		return nil, err
	}
	root, err := filepath.Abs(t.root)
	if err != nil {
		return nil, err
	}
	name := "machine"
	if root != "/" {
		sum := sha256.Sum256([]byte(root))
		name = "root-" + hex.EncodeToString(sum[:6])
	}
	folder := filepath.Join(s.StateDir(), "tune")
	u := &tunable{areas: areas, answer: tuneAnswer{Root: root, Backup: tuneBackup{Folder: filepath.Join(folder, name)}}}
	if u.machine, err = tune.Open(root, u.answer.Backup.Folder); err != nil {
		return nil, err
	}
	if e.Database.URL != "" && root == "/" && slices.Contains(areas, tune.Postgres) {
		if u.server, err = ledger.OpenServer(ctx, e.Database.URL); err != nil {
			u.problem = "it cannot be asked what it has: " + err.Error()
		} else if u.cluster, err = tune.OpenCluster(u.server, filepath.Join(folder, "postgres")); err != nil {
			return nil, errors.Join(err, u.close())
		}
	}
	return u, nil
}

// backedUp notes since when there is something to put back.
func (u *tunable) backedUp() error {
	made, err := u.machine.BackedUp()
	if err != nil && !errors.Is(err, fs.ErrPermission) { // what root has made is not for everybody to read
		return err
	}
	if u.cluster != nil {
		other, err := u.cluster.BackedUp()
		if err != nil && !errors.Is(err, fs.ErrPermission) {
			return err
		}
		if made.IsZero() || !other.IsZero() && other.Before(made) {
			made = other
		}
	}
	u.answer.Backup.Made = made
	return nil
}

// advise says what is advised about the machine.
func (t *tuning) advise(ctx context.Context, u *tunable) ([]tune.Setting, error) {
	e, err := t.app.settings()
	if err != nil {
		return nil, err
	}
	var folders []string
	for _, folder := range []string{e.Store.Path, e.StorageTiers.Hot.Path, e.StorageTiers.Warm.Path, e.StorageTiers.Cold.Path} {
		if folder == "" {
			continue
		}
		if filepath.Clean(t.root) == "/" {
			folder = realFolder(folder)
		}
		folders = append(folders, folder)
	}
	d := databaseOf(e.Database)
	d.Problem = u.problem
	if u.cluster != nil {
		st, err := u.cluster.Look(ctx)
		if err != nil {
			d.Problem = "it cannot be asked what it has: " + err.Error()
		} else {
			d.Server = &st
		}
	}
	return tune.Only(tune.Advise(u.machine.Look(folders, d)), u.areas), nil
}

// realFolder is a folder, or the nearest above it that is there, with links followed.
func realFolder(folder string) string {
	at, err := nearest(folder)
	if err != nil {
		return folder
	}
	if real, err := filepath.EvalSymlinks(at); err == nil {
		return real
	}
	return folder
}

// databaseOf says what is known of the database without asking it.
func databaseOf(d config.Database) tune.Database {
	if d.URL == "" {
		return tune.Database{}
	}
	u, err := url.Parse(d.URL)
	if err != nil {
		return tune.Database{Postgres: true, Remote: true}
	}
	host := cmp.Or(u.Hostname(), u.Query().Get("host"))
	return tune.Database{Postgres: true, Remote: !slices.Contains([]string{"", "localhost", "127.0.0.1", "::1"}, host) && !strings.HasPrefix(host, "/")}
}

func (t *tuning) check(ctx context.Context) (failed error) {
	u, err := t.open(ctx)
	if err != nil {
		return err
	}
	defer func() { failed = errors.Join(failed, u.close()) }()
	answer := &u.answer
	if answer.Settings, err = t.advise(ctx, u); err != nil {
		return err
	}
	if err := u.backedUp(); err != nil {
		return err
	}
	return t.app.result(answer, func(w io.Writer) error {
		if err := printSettings(w, answer.Settings, false); err != nil {
			return err
		}
		if err := printByHand(w, answer.Settings); err != nil {
			return err
		}
		if n := len(advisedOf(answer.Settings)); n > 0 {
			command := "ema tune apply"
			if t.needsRoot() {
				command = t.asRoot("apply")
			}
			fmt.Fprintf(w, "\n%s not as advised; this sets what is: %s\n", count(n, "setting is", "settings are"), command)
		}
		if !answer.Backup.Made.IsZero() {
			fmt.Fprintf(w, "\nwhat was here before %s is put back by: ema tune rollback\n", answer.Backup.Made.Local().Format("2006-01-02 15:04"))
		}
		return nil
	})
}

// advisedOf are the settings that apply would set.
func advisedOf(all []tune.Setting) []tune.Setting {
	return slices.DeleteFunc(slices.Clone(all), func(s tune.Setting) bool { return s.Status != tune.Advised })
}

// needsRoot reports whether changes need another user than this one. The files of another root may be anybody's.
func (t *tuning) needsRoot() bool { return filepath.Clean(t.root) == "/" && os.Geteuid() != 0 }

// asRoot is the command by which root does that, for this user's store.
func (t *tuning) asRoot(op string) string {
	s, err := t.app.store()
	if err != nil { // told by whoever needs the store
		return "sudo ema tune " + op
	}
	return fmt.Sprintf("sudo ema --store %s tune %s", shellWord(s.Path()), op)
}

// refused is the error of a change that needs root.
func (t *tuning) refused(op string) error {
	return &model.Error{
		Op: op, Class: model.Auth, Err: errors.New("settings of the operating system are root's to change"),
		Hint: "run it as root, for this store: " + t.asRoot(op),
	}
}

func (t *tuning) apply(ctx context.Context) (failed error) {
	u, err := t.open(ctx)
	if err != nil {
		return err
	}
	defer func() { failed = errors.Join(failed, u.close()) }()
	all, err := t.advise(ctx, u)
	if err != nil {
		return err
	}
	a, answer := t.app, &u.answer
	ofMachine, ofServer := tune.Changes(all, t.editFstab), tune.ServerChanges(all)
	changes := slices.Concat(ofMachine, ofServer)
	answer.Settings = slices.DeleteFunc(slices.Clone(all), func(s tune.Setting) bool {
		return len(tune.Changes([]tune.Setting{s}, t.editFstab))+len(tune.ServerChanges([]tune.Setting{s})) == 0
	})
	if len(changes) == 0 {
		return a.result(answer, func(w io.Writer) error {
			if _, err := fmt.Fprintln(w, "there is nothing to set"); err != nil {
				return err
			}
			return printByHand(w, all)
		})
	}
	if !a.json {
		err := a.print(func(w io.Writer) error {
			if err := printSettings(w, answer.Settings, true); err != nil {
				return err
			}
			_, err := fmt.Fprintf(w, "\nwould write, with a backup in %s:\n  %s\n", filepath.Dir(answer.Backup.Folder), strings.Join(changes, "\n  "))
			return err
		})
		if err != nil {
			return err
		}
	}
	if len(ofMachine) > 0 && t.needsRoot() {
		return t.refused("apply")
	}
	if err := t.agree(ctx); err != nil {
		return err
	}
	if answer.Changed, err = u.machine.Apply(ctx, all, t.editFstab); err != nil {
		return err
	}
	if u.cluster != nil {
		changed, err := u.cluster.Apply(ctx, all)
		if answer.Changed = append(answer.Changed, changed...); err != nil {
			return err
		}
	}
	if err := u.backedUp(); err != nil {
		return err
	}
	return a.result(answer, func(w io.Writer) error {
		fmt.Fprintf(w, "\nset; \"ema tune rollback\" puts back what was there before\n")
		for _, s := range answer.Settings {
			if s.Status == tune.ByHand && s.Command != "" { // of fstab
				fmt.Fprintf(w, "%s holds from the next mount on, or now with: %s\n", s.Name, s.Command)
			}
			if s.Restart {
				fmt.Fprintf(w, "%s holds once PostgreSQL is started again\n", s.Name)
			}
		}
		return nil
	})
}

// agree asks whether to go on, unless --yes has said so.
func (t *tuning) agree(ctx context.Context) error {
	if t.yes {
		return nil
	}
	in, ok := t.app.stdin.(*os.File)
	if !ok || !interactive(in) || t.app.json {
		return &model.Error{Op: "apply", Class: model.Usage, Err: errors.New("there is nobody to ask"), Hint: "nothing was changed; say --yes to set this without a question"}
	}
	fmt.Fprint(t.app.stderr, "set this? [y/N] ")
	line, err := readLine(ctx, in)
	if err != nil {
		return err
	}
	if line = strings.ToLower(strings.TrimSpace(line)); line == "y" || line == "yes" {
		return nil
	}
	return &model.Error{Op: "apply", Class: model.Cancelled, Err: errors.New("nothing was changed")}
}

// readLine reads a line, or returns when ctx ends: a person may take any time, and may press Ctrl-C in place of an answer.
func readLine(ctx context.Context, in *os.File) (string, error) {
	var line strings.Builder
	for {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		ready := []unix.PollFd{{Fd: int32(in.Fd()), Events: unix.POLLIN}}
		n, err := unix.Poll(ready, 100)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return "", err
		}
		if n < 1 || err != nil {
			continue
		}
		one := make([]byte, 1)
		switch n, err := in.Read(one); {
		case n == 1 && one[0] == '\n', errors.Is(err, io.EOF):
			return line.String(), nil
		case err != nil:
			return "", err
		default:
			line.Write(one[:n])
		}
	}
}

func (t *tuning) rollback(ctx context.Context) (failed error) {
	areas, err := tune.ParseAreas(t.only)
	if err != nil {
		return err
	}
	onlyServer := slices.Equal(areas, []tune.Area{tune.Postgres})
	if !onlyServer && t.needsRoot() {
		return t.refused("rollback")
	}
	u, err := t.open(ctx)
	if err != nil {
		return err
	}
	defer func() { failed = errors.Join(failed, u.close()) }()
	var r, ofServer tune.Restored
	switch {
	case u.cluster != nil:
		if ofServer, err = u.cluster.Rollback(ctx, t.force); err != nil {
			return err
		}
	case u.problem != "" && onlyServer:
		return &model.Error{Op: "rollback", Class: model.Timeout, Err: errors.New(u.problem), Hint: "see whether PostgreSQL runs; nothing was changed"}
	case u.problem != "":
		fmt.Fprintf(t.app.stderr, "ema: note: the settings of PostgreSQL stay as they are: %s\n", u.problem)
	}
	if !onlyServer {
		if r, err = u.machine.Rollback(ctx, u.areas, t.force); err != nil {
			return err
		}
	}
	r.Paths = append(ofServer.Paths, r.Paths...)
	answer := u.answer
	list := func(some []string) []string { return append([]string{}, some...) }
	restored := restoredAnswer{answer.Root, list(r.Paths), list(r.Kept), list(r.Gone)}
	return t.app.result(restored, func(w io.Writer) error {
		if len(r.Paths) == 0 {
			fmt.Fprintf(w, "there is nothing to put back: no change is noted in %s\n", filepath.Dir(answer.Backup.Folder))
		}
		for _, part := range []struct {
			paths []string
			what  string
		}{{r.Paths, "put back"}, {r.Kept, "stays, since there are other files in it"}, {r.Gone, "no longer exists"}} {
			for _, path := range part.paths {
				fmt.Fprintf(w, "%s: %s\n", path, part.what)
			}
		}
		return nil
	})
}

// printSettings prints a line about each setting: why it is advised, or what it risks.
func printSettings(w io.Writer, all []tune.Setting, risks bool) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	last := "WHY"
	if risks {
		last = "RISK"
	}
	fmt.Fprintf(table, "AREA\tSETTING\tCURRENT\tADVISED\t%s\n", last)
	for _, s := range all {
		why, advised := s.Why, s.Advised
		if risks {
			why = s.Risk
		}
		switch {
		case s.Status == tune.Fine:
			advised = "ok"
			why = cmp.Or(s.Note, why)
		case s.Status == tune.Unknown:
			advised, why = "-", s.Note
		case s.Status == tune.Advised && s.Note != "":
			why += "; " + s.Note
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", s.Area, s.Name, cmp.Or(s.Current, "-"), advised, why)
	}
	return table.Flush()
}

// printByHand prints what a person has to do.
func printByHand(w io.Writer, all []tune.Setting) error {
	begun, notes := false, map[string]bool{}
	for _, s := range all {
		if s.Status != tune.ByHand {
			continue
		}
		if !begun {
			begun = true
			fmt.Fprintf(w, "\nby hand, since ema does not do it:\n")
		}
		what := cmp.Or(s.Command, s.Name)
		if s.Note != "" && !notes[s.Note] { // those of PostgreSQL are the same
			notes[s.Note] = true
			what += "  # " + s.Note
		}
		if _, err := fmt.Fprintf(w, "  %s\n", what); err != nil {
			return err
		}
	}
	return nil
}
