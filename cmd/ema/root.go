package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"ema/internal/config"
)

// rootCommand is the whole command line. A command is added by one line here, made by a function of its own file that
// takes the app.
func rootCommand(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:     "ema",
		Short:   "Keeps AI models on this machine: complete, verified, on the right disk",
		Example: "  ema pull org/name\n  ema ls\n  ema doctor",
		Version: currentBuild().String(),

		SilenceErrors: true, // report prints them
		SilenceUsage:  true, // one sentence is more help than a screen of flags
	}
	flags := root.PersistentFlags()
	flags.StringVar(&a.configFile, "config", "", "configuration `file` (default: the first found, see \"ema config show\")")
	flags.StringVar(&a.storeDir, "store", "", "`folder` of the models (default: $HF_HUB_CACHE or the Hugging Face default)")
	flags.StringVar(&a.endpoint, "endpoint", "", "`URL` of the hub (default: $HF_ENDPOINT or the Hugging Face hub)")
	flags.StringVar(&a.server, "server", "", "`URL` of another daemon, whose key is in EMA_API_KEY (default: $EMA_SERVER or the daemon of the store)")
	flags.StringVar(&a.logLevel, "log-level", "", "what to log: debug, info, warn or error")
	flags.BoolVar(&a.json, "json", false, "print results as JSON")
	flags.BoolVar(&a.quiet, "quiet", false, "print no progress")

	root.AddCommand(
		pullCommand(a),
		lsCommand(a),
		infoCommand(a),
		pathCommand(a),
		runCommand(a),
		serveCommand(a),
		psCommand(a),
		topCommand(a),
		updateCommand(a),
		rollbackCommand(a),
		healthCommand(a),
		a.byOwner(verifyCommand(a)),
		a.byOwner(repairCommand(a)),
		a.byOwner(rmCommand(a)),
		a.byOwner(gcCommand(a)),
		usageCommand(a),
		fallbackCommand(a),
		tierCommand(a),
		storeCommand(a),
		dbCommand(a),
		benchmarkCommand(a),
		analyzeCommand(a),
		regressionsCommand(a),
		loadTestCommand(a),
		tuneCommand(a),
		profileCommand(a),
		doctorCommand(a),
		optimizationsCommand(a),
		configCommand(a),
		versionCommand(a),
	)
	root.AddCommand(controlCommands(a)...)

	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.SetVersionTemplate("ema {{.Version}}\n")
	root.SetFlagErrorFunc(flagError)
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	a.frame(root)
	return root
}

// frame gives every command the same manners: arguments only where it asks for some, a suggestion for what is misspelt,
// and an example.
func (a *app) frame(cmd *cobra.Command) {
	for _, c := range cmd.Commands() {
		a.frame(c)
	}
	if cmd.HasSubCommands() && cmd.Run == nil && cmd.RunE == nil {
		cmd.Args = noSuchCommand
		cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	}
	switch {
	case cmd.Name() == "help":
		cmd.Args = noSuchTopic
	case cmd.Args == nil:
		cmd.Args = noArguments
	}
	if cmd.Example == "" { // of the commands that cobra adds
		cmd.Example = "  " + cmd.CommandPath()
	}
	if run := cmd.RunE; run != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			a.running = true
			return run(cmd, args)
		}
	}
}

// noArguments refuses all arguments.
func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return fmt.Errorf("\"%s\" takes no arguments, but got %q; see \"%s --help\"", cmd.CommandPath(), args[0], cmd.CommandPath())
}

// noSuchCommand refuses what is no command, and names the nearest one.
func noSuchCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	var names []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			names = append(names, c.Name())
		}
	}
	return unknown("command", args[0], config.Nearest(args[0], names), cmd)
}

// flagError makes one sentence of a mistake in the flags.
func flagError(cmd *cobra.Command, err error) error {
	missing, ok := errors.AsType[*pflag.NotExistError](err)
	if !ok {
		return fmt.Errorf("%w; see \"%s --help\"", err, cmd.CommandPath())
	}
	name := missing.GetSpecifiedName()
	if len(missing.GetSpecifiedShortnames()) > 0 {
		return unknown("flag", "-"+name, "", cmd)
	}
	var names []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	near := config.Nearest(name, names)
	if near != "" {
		near = "--" + near
	}
	return unknown("flag", "--"+name, near, cmd)
}

// noSuchTopic refuses to explain what doesn't exist.
func noSuchTopic(cmd *cobra.Command, args []string) error {
	found, rest, err := cmd.Root().Find(args)
	if err != nil || !found.HasSubCommands() {
		return err
	}
	return noSuchCommand(found, rest)
}

// unknown is the sentence about a word that means nothing here.
func unknown(kind, word, near string, cmd *cobra.Command) error {
	var b strings.Builder
	fmt.Fprintf(&b, "unknown %s %q; ", kind, word)
	if near != "" {
		fmt.Fprintf(&b, "did you mean %q? ", near)
	}
	fmt.Fprintf(&b, "see \"%s --help\"", cmd.CommandPath())
	return errors.New(b.String())
}
