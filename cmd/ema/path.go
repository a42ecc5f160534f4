package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"ema/internal/model"
	"ema/internal/store"
)

func pathCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "path MODEL[@REV]",
		Short: "Print where an available model is",
		Long: "Prints the folder of a model that is available: complete and verified. It uses no network.\n" +
			"Without REV it is main, else the only revision that is here.",
		Example:           "  vllm serve \"$(ema path org/name)\"\n  ema path org/name@v1.0 --json",
		Args:              oneModel,
		ValidArgsFunction: a.completeHere,
		RunE: func(_ *cobra.Command, args []string) error {
			s, err := a.store()
			if err != nil {
				return err
			}
			id, rev, err := model.ParseRef(args[0])
			if err != nil {
				return &model.Error{Op: "path", Class: model.Usage, Err: err}
			}
			m, err := s.Model(id)
			if err != nil {
				return &model.Error{Op: "path", Class: model.ClassOf(err), Model: id, Err: errors.New("it is not on this machine"), Hint: "bring it with: ema pull " + shellWord(args[0])}
			}
			r, err := revision("path", m, rev)
			if err != nil {
				return err
			}
			if err := usable(m.ID, r); err != nil {
				return err
			}
			answer := struct {
				Model    string `json:"model"`
				Revision string `json:"revision"`
				Commit   string `json:"commit"`
				Path     string `json:"path"`
			}{id.Public(), revisionName(r), r.Commit, s.Snapshot(id, r.Commit)}
			return a.result(answer, func(w io.Writer) error {
				_, err := fmt.Fprintln(w, answer.Path)
				return err
			})
		},
	}
}

// usable is nil for an available revision, else what keeps it from being one.
func usable(id model.ID, r store.Revision) error {
	name := shellWord(spelled(id, r))
	refuse := func(why, hint string) error {
		return &model.Error{Op: "path", Class: model.NotFound, Model: id, Err: errors.New(why), Hint: hint}
	}
	switch r.State {
	case store.Available:
		return nil
	case store.Damaged:
		return refuse("a file of it is damaged", "mend it with: ema repair "+name)
	case store.Incomplete:
		return refuse("files of it are missing", "bring them with: ema pull "+name)
	}
	return refuse("it is here and was never verified", "prove it with: ema verify "+name)
}
