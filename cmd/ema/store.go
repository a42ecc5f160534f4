package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"ema/internal/model"
	"ema/internal/store"
)

func storeCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "store",
		Short: "See whether the folders of the store agree, mend them, and take in models that lie elsewhere",
	}
	cmd.AddCommand(storeCheckCommand(a), a.byOwner(storeRebuildCommand(a)), adoptCommand(a))
	return cmd
}

func storeCheckCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Find and explain what does not agree in the store",
		Long: "Looks at names, links, sizes and notes of the store, of its tiers and of its state folder, and explains what does not\n" +
			"agree. It reads no contents (\"ema verify\" does), changes nothing and needs no daemon to stop. The exit code is 4 when a\n" +
			"model does not load as it should.",
		Example: "  ema store check\n  ema store check --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.store()
			if err != nil {
				return err
			}
			found, err := s.Check(cmd.Context())
			if err != nil {
				return err
			}
			if err := a.result(findingsOf(found), func(w io.Writer) error { return printFindings(w, found, "the store is as it should be") }); err != nil {
				return err
			}
			bad := 0
			for _, f := range found {
				if !f.Harmless {
					bad++
				}
			}
			if bad == 0 {
				return nil
			}
			return &model.Error{
				Op: "check", Class: model.Integrity, File: s.Path(), Err: fmt.Errorf("%s not harmless", count(bad, "finding is", "findings are")),
				Hint: `mend what needs no source with "ema store rebuild", then the rest with "ema repair MODEL"`,
			}
		},
	}
}

func storeRebuildCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "rebuild",
		Short: "Mend what does not agree in the store, as far as that needs no source",
		Long: "Makes links and refs anew whose contents are here, and removes notes about what is gone. It never removes a content.\n" +
			"What is downloaded now is left alone.",
		Example: "  ema store rebuild",
		RunE: func(cmd *cobra.Command, _ []string) (failed error) {
			s, err := a.store()
			if err != nil {
				return err
			}
			w, done, err := a.own(cmd.Context(), s, "ema store rebuild")
			if err != nil {
				return err
			}
			defer func() { failed = errors.Join(failed, done()) }()
			mended, err := w.Rebuild(cmd.Context(), func(id model.ID) bool { return a.busy[id] })
			for _, f := range mended {
				if !f.Model.IsZero() {
					a.tell(f.Model, "rebuilt")
				}
			}
			if err != nil {
				return err
			}
			return a.result(findingsOf(mended), func(w io.Writer) error { return printFindings(w, mended, "there is nothing to mend") })
		},
	}
}

// A disagreement is a store.Finding in JSON.
type disagreement struct {
	Kind     store.FindingKind `json:"kind"`
	Model    string            `json:"model,omitempty"`
	Path     string            `json:"path"`
	Problem  string            `json:"problem"`
	Remedy   string            `json:"remedy"`
	Harmless bool              `json:"harmless"`
}

func findingsOf(all []store.Finding) map[string][]disagreement {
	list := []disagreement{}
	for _, f := range all {
		one := disagreement{Kind: f.Kind, Path: f.Path, Problem: f.Problem, Remedy: f.Remedy, Harmless: f.Harmless}
		if !f.Model.IsZero() {
			one.Model = f.Model.Public()
		}
		list = append(list, one)
	}
	return map[string][]disagreement{"findings": list}
}

// printFindings prints a block for each finding: what, where, and what to do.
func printFindings(w io.Writer, all []store.Finding, none string) error {
	if len(all) == 0 {
		_, err := fmt.Fprintln(w, none)
		return err
	}
	for _, f := range all {
		name := string(f.Kind)
		if !f.Model.IsZero() {
			name = f.Model.Public() + ": " + name
		}
		if f.Harmless {
			name += " (harmless)"
		}
		if _, err := fmt.Fprintf(w, "%s\n  %s\n  %s; %s\n", name, f.Path, f.Problem, f.Remedy); err != nil {
			return err
		}
	}
	return nil
}

func adoptCommand(a *app) *cobra.Command {
	var opt store.Adopting
	cmd := &cobra.Command{
		Use:   "adopt DIR [MODEL[@REV]...]",
		Short: "Take models into the store that lie in another folder, without fetching them",
		Long: "Takes in all models, or those that are named, of another cache in the layout of the Hugging Face cache, or a plain folder\n" +
			"as the model that is named. Every byte is read and proven. Storage is shared where the file system can, else the files get\n" +
			"a second name, else they are copied. The folder stays as it is: remove it when you do not need it any more.",
		Example: "  ema store adopt /old/huggingface/hub\n  ema store adopt ./my-model org/name@main",
		Args:    cobra.MinimumNArgs(1),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveFilterDirs
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.adopt(cmd.Context(), args[0], args[1:], opt)
		},
	}
	cmd.Flags().BoolVar(&opt.Copy, "copy", false, "never give a file a second name: copy it where storage cannot be shared")
	inner := a.byOwner(cmd)
	run := inner.RunE
	inner.RunE = func(cmd *cobra.Command, args []string) error {
		dir, err := filepath.Abs(args[0]) // the daemon works in another folder
		if err != nil {
			return err
		}
		if i := slices.Index(a.args, args[0]); i >= 0 {
			a.args = slices.Clone(a.args)
			a.args[i] = dir
		}
		return run(cmd, append([]string{dir}, args[1:]...))
	}
	return inner
}

// An adoptedModel is one revision that was adopted, in JSON.
type adoptedModel struct {
	Model    string      `json:"model"`
	Revision string      `json:"revision"`
	Commit   string      `json:"commit"`
	Path     string      `json:"path"`
	Files    int         `json:"files"`
	Bytes    model.Bytes `json:"bytes"`
	Cloned   int         `json:"cloned"`
	Linked   int         `json:"linked"`
	Copied   int         `json:"copied"`
	Kept     int         `json:"kept"`
	Notes    []string    `json:"notes,omitempty"`
}

func (a *app) adopt(ctx context.Context, dir string, names []string, opt store.Adopting) (failed error) {
	for _, name := range names {
		id, rev, err := model.ParseRef(name)
		if err != nil {
			return err
		}
		if rev != "" && len(names) > 1 {
			return &model.Error{Op: "adopt", Class: model.Usage, Model: id, Err: errors.New("a revision is for a single model"), Hint: "adopt one after the other"}
		}
		opt.Models, opt.Revision = append(opt.Models, id), rev
	}
	s, err := a.store()
	if err != nil {
		return err
	}
	w, done, err := a.own(ctx, s, "ema store adopt")
	if err != nil {
		return err
	}
	defer func() { failed = errors.Join(failed, done()) }()
	adopted, err := w.Adopt(ctx, dir, opt)
	answer := []adoptedModel{}
	for _, m := range adopted.Models {
		a.tell(m.ID, "adopted")
		answer = append(answer, adoptedModel{m.ID.Public(), m.Revision, m.Commit, m.Path, m.Files, m.Bytes, m.Cloned, m.Linked, m.Copied, m.Kept, m.Notes})
		for _, note := range m.Notes {
			a.note(m.ID, note)
		}
	}
	for _, refused := range adopted.Refused {
		fmt.Fprintln(a.stderr, "ema: note: "+refused.Error())
	}
	if err != nil {
		return err
	}
	if err := a.result(map[string][]adoptedModel{"models": answer}, func(w io.Writer) error { return printAdopted(w, adopted.Models) }); err != nil {
		return err
	}
	if len(adopted.Refused) > 0 {
		return &model.Error{
			Op: "adopt", Class: model.ClassOf(adopted.Refused[0]), File: dir,
			Err: fmt.Errorf("%s not adopted", count(len(adopted.Refused), "revision was", "revisions were")), Hint: "the notes say why",
		}
	}
	return nil
}

// printAdopted says of each revision what became of it.
func printAdopted(w io.Writer, all []store.AdoptedModel) error {
	if len(all) == 0 {
		_, err := fmt.Fprintln(w, "there is nothing to adopt")
		return err
	}
	for _, m := range all {
		how := "it is here already"
		if !m.Existing {
			var parts []string
			for _, p := range []struct {
				n    int
				what string
			}{{m.Cloned, "shared"}, {m.Linked, "linked"}, {m.Copied, "copied"}, {m.Kept, "here already"}} {
				if p.n > 0 {
					parts = append(parts, fmt.Sprintf("%d %s", p.n, p.what))
				}
			}
			how = "adopted, " + strings.Join(parts, ", ")
		}
		if _, err := fmt.Fprintf(w, "%s@%s: %s, %s, %s\n", m.ID.Public(), cmp.Or(m.Revision, m.Commit), how, count(m.Files, "file", "files"), m.Bytes); err != nil {
			return err
		}
	}
	return nil
}
