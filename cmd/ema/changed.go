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

// unfinished is how files are called that do not have the name yet. One that is left is of a process that was killed.
const unfinished = ".settings-*.tmp"

// writeOverlay replaces changed settings, for who is alone with them. Only the user may read them: there may be passwords among them.
func writeOverlay(file string, o config.Overlay) (err error) {
	content, err := o.Encode()
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = &model.Error{Op: "store the changed settings", Class: model.DiskError, Err: err, Hint: "nothing was changed; see to the disk"}
		}
	}()
	folder := filepath.Dir(file)
	left, err := filepath.Glob(filepath.Join(folder, unfinished))
	if err != nil {
		return err
	}
	for _, name := range left {
		if err := os.Remove(name); err != nil {
			return err
		}
	}
	f, err := os.CreateTemp(folder, unfinished)
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // it is gone already when all went well
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), file); err != nil {
		return err
	}
	at, err := os.Open(folder)
	if err != nil {
		return err
	}
	return errors.Join(at.Sync(), at.Close())
}

// alone waits until nobody else changes settings there. The lock ends with the process that holds it.
func alone(ctx context.Context, file string) (end func() error, err error) {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return nil, &model.Error{Op: "store the changed settings", Class: model.DiskError, Err: err, Hint: "check the folder"}
	}
	f, err := os.OpenFile(file+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, &model.Error{Op: "store the changed settings", Class: model.DiskError, Err: err, Hint: "check the folder"}
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return f.Close, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return nil, errors.Join(err, f.Close())
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), f.Close())
		}
	}
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
	file     string
	over     config.Overlay // after it
	next     *config.Effective
	warnings []client.SettingWarning
}

// change judges a change of the settings that base has led to. load loads them anew.
func change(base *config.Effective, patch json.RawMessage, load func(config.Overlay) (*config.Effective, error)) (changing, error) {
	var c changing
	var err error
	if c.file = overlayFile(base.Config); c.file == "" {
		return c, &model.Error{Op: "change settings", Class: model.Usage, Err: errors.New("there is no store that they could be kept beside"), Hint: "name one with --store"}
	}
	before, err := readOverlay(c.file)
	if err != nil {
		return c, err
	}
	if c.over, err = before.Merge(patch); err != nil {
		return c, mistaken(err)
	}
	if c.next, err = load(c.over); err != nil {
		return c, mistaken(err)
	}
	var asked config.Overlay
	if asked, err = asked.Merge(patch); err != nil {
		return c, mistaken(err)
	}
	for _, w := range append(c.next.Outvoted(asked), c.next.Warnings...) {
		c.warnings = append(c.warnings, client.SettingWarning{Key: w.Key, Message: w.Text})
	}
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

// judge is change on the daemon's own settings.
func (b board) judge(patch json.RawMessage) (changing, *config.Effective, error) {
	b.d.mu.Lock()
	now := b.d.settings
	b.d.mu.Unlock()
	c, err := change(now, patch, b.d.app.daemonSettingsOver)
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
	return client.Validated{Valid: true, Warnings: c.warnings, Updated: slices.Concat(acting, restart), RestartKeys: restart}, nil
}

// Update makes a change: it is judged, then it acts, then it is stored. So what is stored has acted once, and a kill in
// between leaves what was before; whoever asked was told nothing then.
func (b board) Update(ctx context.Context, patch json.RawMessage) (client.Reloaded, error) {
	b.d.reloading.Lock()
	defer b.d.reloading.Unlock()
	end, err := alone(ctx, overlayFile(b.d.settings.Config))
	if err != nil {
		return client.Reloaded{}, err
	}
	c, now, err := b.judge(patch)
	if err != nil {
		return client.Reloaded{}, errors.Join(err, end())
	}
	done, err := b.d.apply(c.next)
	if err == nil {
		if err = writeOverlay(c.file, c.over); err != nil {
			_, undo := b.d.apply(now)
			err = errors.Join(err, undo)
		}
	}
	if err = errors.Join(err, end()); err != nil {
		return client.Reloaded{}, err
	}
	done.Warnings = c.warnings
	return done, nil
}

func configSet(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "set KEY VALUE",
		Short: "Change one setting, now and for good",
		Long: "Changes one setting beside the configuration file, which stays as it is and counts less. A daemon that runs on the\n" +
			"store acts on it at once. VALUE is written as in a variable of the environment: lists with commas, sections as JSON.",
		Example: "  ema config set bandwidth_management.global_limit_mbps 50\n  ema config set downloads.max_concurrent_downloads 4",
		Args:    cobra.ExactArgs(2),
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
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			patch, err := config.Unset(args[0])
			if err != nil {
				return &usageError{err}
			}
			return a.changeSettings(cmd.Context(), patch)
		},
	}
}

// changeSettings changes settings in the daemon, or without one where it will find them.
func (a *app) changeSettings(ctx context.Context, patch json.RawMessage) error {
	daemon, found, err := a.remote(ctx)
	if err != nil {
		return err
	}
	var done client.Reloaded
	if found {
		defer daemon.Close()
		var part map[string]any
		if err := json.Unmarshal(patch, &part); err != nil {
			return err
		}
		done, err = daemon.ConfigUpdate(ctx, part)
	} else {
		done, err = a.storeSettings(ctx, patch)
	}
	if err != nil {
		return err
	}
	for _, w := range done.Warnings {
		fmt.Fprintf(a.stderr, "ema: note: %s %s\n", w.Key, w.Message)
	}
	return a.result(done, func(w io.Writer) error {
		if len(done.Updated) == 0 {
			_, err := fmt.Fprintln(w, "nothing acts differently")
			return err
		}
		for _, key := range done.Updated {
			when := "changed"
			if found && slices.Contains(done.RestartKeys, key) {
				when = "changed, and acts once the daemon is started again"
			}
			if _, err := fmt.Fprintf(w, "%s: %s\n", key, when); err != nil {
				return err
			}
		}
		return nil
	})
}

// storeSettings stores a change while no daemon runs.
func (a *app) storeSettings(ctx context.Context, patch json.RawMessage) (client.Reloaded, error) {
	now, err := a.settings()
	if err != nil {
		return client.Reloaded{}, err
	}
	file := overlayFile(now.Config)
	if file == "" {
		_, err := change(now, patch, nil)
		return client.Reloaded{}, err
	}
	end, err := alone(ctx, file)
	if err != nil {
		return client.Reloaded{}, err
	}
	c, err := change(now, patch, func(o config.Overlay) (*config.Effective, error) { return a.loadOver(a.configFile, &o) })
	if err == nil {
		err = writeOverlay(c.file, c.over)
	}
	if err = errors.Join(err, end()); err != nil {
		return client.Reloaded{}, err
	}
	acting, restart := config.Changes(now, c.next)
	return client.Reloaded{Success: true, Updated: slices.Concat([]string{}, acting, restart), RestartRequired: len(restart) > 0, RestartKeys: append([]string{}, restart...), Warnings: c.warnings}, nil
}
