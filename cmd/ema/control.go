package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"ema/client"
	"ema/internal/model"
)

// controlCommands are pause, resume, cancel and prioritize.
func controlCommands(a *app) []*cobra.Command {
	return []*cobra.Command{
		a.controlCommand("pause", "Pause downloads of the daemon; what they have is kept", "A paused download goes on when it is resumed, also after a restart of the daemon."),
		a.controlCommand("resume", "Let paused downloads go on", "A download that waits to be tried again is tried at once."),
		a.controlCommand("cancel", "Cancel downloads of the daemon", "What was fetched stays for a while: a pull of the same model goes on from there, and \"ema gc\" removes it."),
		prioritizeCommand(a),
	}
}

func (a *app) controlCommand(action, short, more string) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:               action + " MODEL[@REV]...|--all",
		Short:             short,
		Long:              short + ".\n" + more,
		Example:           fmt.Sprintf("  ema %s org/name\n  ema %s --all", action, action),
		ValidArgsFunction: a.completeActive,
		Args: func(cmd *cobra.Command, args []string) error {
			switch {
			case all && len(args) > 0:
				return fmt.Errorf("--all stands instead of names; see \"%s --help\"", cmd.CommandPath())
			case all:
				return nil
			}
			return someModels(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			requests := []client.Manage{{Action: action, All: true}}
			if !all {
				var err error
				if requests, err = controlRequests(action, "", args); err != nil {
					return err
				}
			}
			return a.control(cmd.Context(), action, requests)
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "every download for which that makes sense")
	return cmd
}

func prioritizeCommand(a *app) *cobra.Command {
	levels := []string{"low", "normal", "high", "critical"}
	return &cobra.Command{
		Use:   "prioritize MODEL[@REV]... low|normal|high|critical",
		Short: "Change the priority of downloads",
		Long: "Changes the priority of downloads: which one is next, and its part of a limited bandwidth (low 1, normal 2, high 4,\n" +
			"critical 8). A critical one that finds no room pauses the lowest one that runs, which goes on by itself afterwards.",
		Example: "  ema prioritize org/name high",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 2 {
				return fmt.Errorf("name a model and a priority, e.g. org/name high; see \"%s --help\"", cmd.CommandPath())
			}
			return nil
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
			names, how := a.completeActive(cmd, args, typed)
			if len(args) > 0 {
				names = append(names, levels...)
			}
			return names, how
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			names, level := args[:len(args)-1], args[len(args)-1]
			if !slices.Contains(levels, level) {
				return &model.Error{Op: "prioritize", Class: model.Usage, Err: fmt.Errorf("priority %q is none of low, normal, high, critical", level), Hint: "name it after the models"}
			}
			requests, err := controlRequests("prioritize", level, names)
			if err != nil {
				return err
			}
			return a.control(cmd.Context(), "prioritize", requests)
		},
	}
}

// controlRequests reads the whole command line before anything is done.
func controlRequests(action, priority string, args []string) ([]client.Manage, error) {
	var all []client.Manage
	for _, arg := range args {
		id, rev, err := model.ParseRef(arg)
		if err != nil {
			return nil, &model.Error{Op: action, Class: model.Usage, Err: err}
		}
		all = append(all, client.Manage{Action: action, Model: id.String(), Revision: rev, Priority: priority})
	}
	return all, nil
}

// control does one thing to several downloads. One that can't be does not keep the others, and decides the exit code.
func (a *app) control(ctx context.Context, action string, requests []client.Manage) error {
	c, err := a.daemon(ctx, action)
	if err != nil {
		return err
	}
	return eachOf(ctx, a, requests, func(m client.Manage) error {
		done, err := c.Manage(ctx, m)
		if err != nil {
			return err
		}
		return a.result(done, func(w io.Writer) error { return printControlled(w, action, done) })
	})
}

// printControlled is a line about each download that was concerned.
func printControlled(w io.Writer, action string, done client.Managed) error {
	if len(done.Downloads) == 0 {
		_, err := fmt.Fprintf(w, "there is no download to %s\n", action)
		return err
	}
	var failed error
	for _, d := range done.Downloads {
		text := string(stateOf(d))
		if action == "prioritize" {
			text = "priority " + d.Priority + ", " + text
		}
		_, err := fmt.Fprintf(w, "%s: %s\n", called(d), text)
		failed = errors.Join(failed, err)
	}
	return failed
}

// completeActive completes the names of downloads that are not over.
func (a *app) completeActive(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	c, found, err := a.remote(cmd.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var names []cobra.Completion
	if found {
		active, err := c.Active(cmd.Context())
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		for _, d := range active.Downloads {
			if name := called(d); !slices.Contains(args, name) && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
