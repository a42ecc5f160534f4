package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"ema/client"
	"ema/internal/api"
	"ema/internal/config"
	"ema/internal/model"
	"ema/internal/store"
)

// changedFile has the settings that the API or "ema config set" has changed, in the store's state folder. It is replaced
// as a whole: a new file is written and synced, then it takes the name, then the folder is synced. So after a kill or a
// power loss it has all of a change or nothing of it, and who was told of a change finds it.
const changedFile = "settings.json"

// overlayFile is where changed settings of that store lie; empty where there is no store.
func overlayFile(c config.Config) string {
	if c.Store.Path == "" {
		return ""
	}
	return filepath.Join(store.New(store.Settings{Path: c.Store.Path, StateDir: c.Store.StateDir}).StateDir(), changedFile)
}

// readOverlay reads changed settings; a file that is not there has none.
func readOverlay(file string) (config.Overlay, error) {
	if file == "" {
		return config.Overlay{}, nil
	}
	content, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		content, err = []byte("{}"), nil
	}
	if err != nil {
		return config.Overlay{}, &model.Error{Op: "read the changed settings", Class: model.DiskError, Err: err, Hint: "make the file readable for this user"}
	}
	return config.ParseOverlay(file, content)
}

// writeOverlay replaces changed settings, was by will, for who is alone with them. When it fails, was is there.
func writeOverlay(disk store.Disk, file string, was, will config.Overlay) error {
	named, err := replaceOverlay(disk, file, will)
	if err == nil {
		return nil
	}
	hint := "nothing was changed; see to the disk"
	if named { // only the folder could not be synced, but what is refused must not act after a restart
		if back, undo := replaceOverlay(disk, file, was); !back {
			err, hint = errors.Join(err, undo), "the change acts after a restart, unless it is taken back; see to the disk"
		}
	}
	return &model.Error{Op: "store the changed settings", Class: model.DiskError, Err: err, Hint: hint}
}

// replaceOverlay writes o, and reports whether it has the name.
func replaceOverlay(disk store.Disk, file string, o config.Overlay) (named bool, err error) {
	content, err := o.Encode()
	if err != nil {
		return false, err
	}
	return replaceFile(disk, file, content)
}

// replaceFile writes a file as a whole, durably, and reports whether it has the name: a new one is written and synced, takes the name,
// and then the folder is synced. Only the user may read it: there may be passwords in it. It is for who is alone with the file.
func replaceFile(disk store.Disk, file string, content []byte) (named bool, err error) {
	unfinished := file + ".new" // one that is left is of a process that was killed
	if err := disk.Remove(unfinished); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	f, err := disk.OpenFile(unfinished, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return false, err
	}
	if _, err = f.WriteAt(content, 0); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return false, err
	}
	if err := disk.Rename(unfinished, file); err != nil {
		return false, err
	}
	return true, disk.SyncDir(filepath.Dir(file))
}

// alone waits until nobody else changes settings there. The lock ends with the process that holds it. end may be called
// more than once.
func alone(ctx context.Context, file string) (end func() error, err error) {
	failed := func(err error) error {
		return &model.Error{Op: "store the changed settings", Class: model.DiskError, Err: err, Hint: "check the folder"}
	}
	if err := makeFolder(store.OS{}, filepath.Dir(file)); err != nil {
		return nil, failed(err)
	}
	f, err := store.OS{}.OpenFile(file+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, failed(err)
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		mine, err := f.TryLock()
		switch {
		case err != nil:
			return nil, errors.Join(failed(err), f.Close())
		case mine:
			return sync.OnceValue(f.Close), nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), f.Close())
		}
	}
}

// makeFolder makes a folder that outlives a power loss, with those above it. Whoever may read a store finds its state.
func makeFolder(disk store.Disk, name string) error {
	err := disk.Mkdir(name, 0o777)
	if errors.Is(err, fs.ErrNotExist) {
		if err := makeFolder(disk, filepath.Dir(name)); err != nil {
			return err
		}
		err = disk.Mkdir(name, 0o777)
	}
	if info, there := os.Stat(name); errors.Is(err, fs.ErrExist) && there == nil && info.IsDir() {
		return nil
	}
	if err != nil {
		return err
	}
	return disk.SyncDir(filepath.Dir(name))
}

// settingMistakes are mistakes in a change, as the API tells them.
type settingMistakes struct{ config.Errors }

// Fields are all of them.
func (m settingMistakes) Fields() []api.FieldError {
	var all []api.FieldError
	for _, e := range m.Errors {
		all = append(all, api.FieldError{Path: e.Key, Value: e.Value, Problem: e.Problem, Want: e.Want, Nearest: e.Nearest})
	}
	return all
}

// mistaken is err with its mistakes as the API wants to have them, if it has any.
func mistaken(err error) error {
	if all, ok := errors.AsType[config.Errors](err); ok {
		return &model.Error{Op: "change settings", Class: model.Usage, Err: settingMistakes{all}}
	}
	return err
}

// changing is a change of settings that was judged and is not made yet.
type changing struct {
	was, will config.Overlay
	next      *config.Effective
	outvoted  []config.Warning
}

// warnings are about what will hold.
func (c changing) warnings() []client.SettingWarning {
	var all []client.SettingWarning
	for _, w := range slices.Concat(c.outvoted, c.next.Warnings) {
		all = append(all, client.SettingWarning{Key: w.Key, Message: w.Text})
	}
	return all
}

// change judges a change of the settings in file. now are those that hold, and load loads them anew.
func change(now *config.Effective, file string, patch json.RawMessage, load func(config.Overlay) (*config.Effective, error)) (changing, error) {
	var c changing
	var err error
	if c.was, err = readOverlay(file); err != nil {
		return c, err
	}
	if c.will, err = c.was.MergeOver(now, patch); err != nil {
		return c, mistaken(err)
	}
	if c.next, err = load(c.will); err != nil {
		return c, mistaken(err)
	}
	asked, err := config.Overlay{}.MergeOver(now, patch)
	if err != nil {
		return c, mistaken(err)
	}
	c.outvoted = c.next.Outvoted(asked)
	return c, nil
}

// board lets the API see and change the settings of the daemon.
type board struct{ d *daemon }

// Current is what holds now.
func (b board) Current(context.Context) (any, error) {
	b.d.mu.Lock()
	e := b.d.settings
	b.d.mu.Unlock()
	s := client.Settings{
		Config: e.Values(), Origins: e.Origins(), File: e.File, Profile: e.OptimizationProfile,
		Warnings: []client.SettingWarning{}, Inactive: append([]string{}, e.Inactive()...),
	}
	for _, w := range e.Warnings {
		s.Warnings = append(s.Warnings, client.SettingWarning{Key: w.Key, Message: w.Text})
	}
	return s, nil
}

// Schema is that of a configuration file.
func (board) Schema() (json.RawMessage, error) {
	schema, err := config.Schema()
	return schema, err
}

// changedFile is where the daemon keeps its changed settings. They stay with its store while it runs, whatever the
// configuration file comes to say of stores.
func (d *daemon) changedFile() string { return filepath.Join(d.line.Store.StateDir(), changedFile) }

// judge is change on the daemon's own settings.
func (b board) judge(patch json.RawMessage) (changing, *config.Effective, error) {
	b.d.mu.Lock()
	now := b.d.settings
	b.d.mu.Unlock()
	c, err := change(now, b.d.changedFile(), patch, b.d.app.daemonSettingsOver)
	return c, now, err
}

// Validate judges a change and makes none.
func (b board) Validate(_ context.Context, patch json.RawMessage) (client.Validated, error) {
	b.d.reloading.Lock()
	defer b.d.reloading.Unlock()
	c, now, err := b.judge(patch)
	if err != nil {
		return client.Validated{}, err
	}
	acting, restart := config.Changes(now, c.next)
	return client.Validated{Valid: true, Warnings: c.warnings(), Updated: slices.Concat(acting, restart), RestartKeys: restart}, nil
}

// Update makes a change: it is judged, then it acts, then it is stored. So what is stored has acted once, and a kill in
// between leaves what was before; whoever asked was told nothing then. What cannot be stored acts no longer.
func (b board) Update(ctx context.Context, patch json.RawMessage) (client.Reloaded, error) {
	b.d.reloading.Lock()
	defer b.d.reloading.Unlock()
	end, err := alone(ctx, b.d.changedFile())
	if err != nil {
		return client.Reloaded{}, err
	}
	c, now, err := b.judge(patch)
	if err != nil {
		return client.Reloaded{}, errors.Join(err, end())
	}
	done, err := b.d.apply(c.next)
	if err == nil {
		if err = writeOverlay(store.OS{}, b.d.changedFile(), c.was, c.will); err != nil {
			_, undo := b.d.apply(now)
			err = errors.Join(err, undo)
		}
	}
	if err = errors.Join(err, end()); err != nil {
		return client.Reloaded{}, err
	}
	for _, w := range c.outvoted {
		b.d.log.Warn("configuration", "key", w.Key, "warning", w.Text)
	}
	done.Warnings = c.warnings()
	return done, nil
}

// catchUp reads what a command has stored after the daemon had read it and before the daemon could be asked. From then on
// a command that is alone with the changed settings finds the daemon. It must not keep the daemon from answering: such a
// command asks it while it holds the lock.
func (d *daemon) catchUp(ctx context.Context) error {
	if err := d.readMissed(ctx); err != nil && ctx.Err() == nil {
		d.log.Error("configuration not reloaded; the settings stay as they were", "error", err.Error())
	}
	return nil
}

func (d *daemon) readMissed(ctx context.Context) error {
	d.reloading.Lock()
	defer d.reloading.Unlock()
	end, err := alone(ctx, d.changedFile())
	if err != nil {
		return err
	}
	next, err := d.app.daemonSettings(d.changedFile())
	if err = errors.Join(err, end()); err != nil {
		return err
	}
	d.mu.Lock()
	now := d.settings
	d.mu.Unlock()
	if acting, restart := config.Changes(now, next); len(acting)+len(restart) == 0 {
		return nil
	}
	_, err = d.apply(next)
	return err
}

func configSet(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "set KEY VALUE",
		Short: "Change one setting, now and for good",
		Long: "Changes one setting beside the configuration file, which stays as it is and counts less. A daemon that runs on the\n" +
			"store acts on it at once. VALUE is written as in a variable of the environment: lists with commas, sections as JSON.",
		Example: "  ema config set bandwidth_management.global_limit_mbps 50\n  ema config set downloads.max_concurrent_downloads 4",
		Args:    exactly(2, "name a key and its value, e.g. log.level debug"),
		RunE: func(cmd *cobra.Command, args []string) error {
			patch, err := config.Set(args[0], args[1])
			if err != nil {
				return &usageError{err}
			}
			return a.changeSettings(cmd.Context(), patch)
		},
	}
}

func configUnset(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "unset KEY",
		Short:   "Take back what was changed of a key or of a section",
		Long:    "Takes back what \"ema config set\" or the API has changed: what the configuration file says counts again, or the default.",
		Example: "  ema config unset bandwidth_management.global_limit_mbps\n  ema config unset downloads",
		Args:    exactly(1, "name one key or section, e.g. log.level"),
		RunE: func(cmd *cobra.Command, args []string) error {
			patch, err := config.Unset(args[0])
			if err != nil {
				return &usageError{err}
			}
			return a.changeSettings(cmd.Context(), patch)
		},
	}
}

// exactly wants so many arguments, and says which.
func exactly(n int, want string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return fmt.Errorf("%s; see \"%s --help\"", want, cmd.CommandPath())
		}
		return nil
	}
}

// changeSettings changes settings, and says which and from when on they act.
func (a *app) changeSettings(ctx context.Context, patch json.RawMessage) error {
	done, running, err := a.makeChange(ctx, patch)
	if err != nil {
		return err
	}
	for _, w := range done.Warnings {
		fmt.Fprintf(a.stderr, "ema: note: %s: %s\n", w.Key, w.Message)
	}
	return a.result(done, func(w io.Writer) error {
		if len(done.Updated) == 0 {
			_, err := fmt.Fprintln(w, "nothing acts differently")
			return err
		}
		for _, key := range done.Updated {
			when := "changed"
			if running && slices.Contains(done.RestartKeys, key) {
				when = "changed, and acts once the daemon is started again"
			}
			if _, err := fmt.Fprintf(w, "%s: %s\n", key, when); err != nil {
				return err
			}
		}
		return nil
	})
}

// makeChange changes settings in the daemon, or without one where it will find them; running says which.
func (a *app) makeChange(ctx context.Context, patch json.RawMessage) (done client.Reloaded, running bool, err error) {
	if a.named() == "" {
		// The settings without changes say where changes are. So one that does not fit the others any more, with which no
		// command works, can be taken back.
		if a.effective, err = a.loadOver(a.configFile, &config.Overlay{}); err != nil {
			return done, false, err
		}
	}
	daemon, found, err := a.remote(ctx)
	switch {
	case err != nil:
		return done, false, err
	case found:
		done, err = changeIn(ctx, daemon, patch)
		return done, true, err
	}
	return a.storeSettings(ctx, patch)
}

// changeIn changes settings in a daemon.
func changeIn(ctx context.Context, daemon *client.Client, patch json.RawMessage) (client.Reloaded, error) {
	defer daemon.Close()
	var part map[string]any
	if err := json.Unmarshal(patch, &part); err != nil {
		return client.Reloaded{}, err
	}
	return daemon.ConfigUpdate(ctx, part)
}

// storeSettings stores a change, or hands it to the daemon that has come meanwhile.
func (a *app) storeSettings(ctx context.Context, patch json.RawMessage) (done client.Reloaded, running bool, err error) {
	base, err := a.settings()
	if err != nil {
		return done, false, err
	}
	file := overlayFile(base.Config)
	if file == "" {
		return done, false, &model.Error{Op: "change settings", Class: model.Usage, Err: errors.New("there is no store that they could be kept beside"), Hint: "name one with --store"}
	}
	end, err := alone(ctx, file)
	if err != nil {
		return done, false, err
	}
	defer func() { err = errors.Join(err, end()) }()
	daemon, found, err := a.owner(ctx)
	switch {
	case err != nil:
		return done, false, err
	case found:
		if err := end(); err != nil { // it needs to be alone itself
			return done, false, err
		}
		done, err = changeIn(ctx, daemon, patch)
		return done, true, err
	}
	now, err := a.load(a.configFile)
	if err != nil { // change says so, if it is more than a change that does not fit
		now = base
	}
	c, err := change(now, file, patch, func(o config.Overlay) (*config.Effective, error) { return a.loadOver(a.configFile, &o) })
	if err != nil {
		return done, false, err
	}
	if err := writeOverlay(store.OS{}, file, c.was, c.will); err != nil {
		return done, false, err
	}
	acting, restart := config.Changes(now, c.next)
	return client.Reloaded{
		Success: true, Updated: slices.Concat([]string{}, acting, restart), Warnings: c.warnings(),
		RestartRequired: len(restart) > 0, RestartKeys: append([]string{}, restart...),
	}, false, nil
}
