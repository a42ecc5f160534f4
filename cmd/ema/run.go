package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"ema/internal/model"
)

func runCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "run MODEL[@REV]... -- CMD ARG...",
		Short: "Run a command when its models are available",
		Long: "Brings the models here like \"ema pull\", and then becomes the command: its exit code and its signals are its own.\n" +
			"EMA_MODEL_PATH is the path of the first model, and so is {} wherever it stands in the arguments. Of several models\n" +
			"{1} is the path of the first too, {2} and EMA_MODEL_PATH_2 that of the second, and so on.",
		Example: "  ema run org/name -- vllm serve {}\n" +
			"  ema run org/name@v1.0 org/other -- python compare.py --old {1} --new {2}",
		ValidArgsFunction: a.completeHere,
		Args: func(cmd *cobra.Command, args []string) error {
			dash := cmd.ArgsLenAtDash()
			if dash < 1 || dash == len(args) {
				return fmt.Errorf("name models, then -- and a command, e.g. org/name -- vllm serve {}; see \"%s --help\"", cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			dash := cmd.ArgsLenAtDash()
			return a.runWith(cmd.Context(), args[:dash], args[dash:])
		},
	}
}

// runWith brings the models and becomes the command. It returns only when that fails.
func (a *app) runWith(ctx context.Context, models, command []string) error {
	program, err := exec.LookPath(command[0]) // before anything is fetched: a typing error costs nothing
	if err == nil {
		program, err = filepath.Abs(program)
	}
	if err != nil {
		return &model.Error{Op: "run", Class: model.Usage, File: command[0], Err: errors.New("no such program"), Hint: "check its name and PATH"}
	}
	if _, err := (pullFlags{}).requests(models); err != nil {
		return err
	}
	var paths []string
	for _, name := range models {
		path, err := a.bring(ctx, name)
		if err != nil {
			return err
		}
		paths = append(paths, path)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	environ := append([]string{}, a.environ...)
	for i, path := range paths {
		if i == 0 {
			environ = append(environ, "EMA_MODEL_PATH="+path)
		} else {
			environ = append(environ, "EMA_MODEL_PATH_"+strconv.Itoa(i+1)+"="+path)
		}
	}
	err = syscall.Exec(program, withPaths(command, paths), environ)
	return &model.Error{Op: "run", File: program, Err: err, Hint: "see whether it may be executed on this machine"}
}

// bring pulls one model and returns its path.
func (a *app) bring(ctx context.Context, name string) (string, error) {
	var printed bytes.Buffer
	quiet := *a
	quiet.stdout, quiet.json = &printed, false
	if err := quiet.pull(ctx, []string{name}, pullFlags{here: true}); err != nil {
		return "", err
	}
	return strings.TrimSuffix(printed.String(), "\n"), nil
}

// withPaths replaces {} and {1}, {2}, … in the arguments of a command.
func withPaths(command, paths []string) []string {
	pairs := []string{"{}", paths[0]}
	for i, path := range paths {
		if len(paths) == 1 {
			break // {1} may mean something to the command
		}
		pairs = append(pairs, "{"+strconv.Itoa(i+1)+"}", path)
	}
	put := strings.NewReplacer(pairs...)
	words := []string{command[0]}
	for _, w := range command[1:] {
		words = append(words, put.Replace(w))
	}
	return words
}
