package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"ema/internal/config"
	"ema/internal/model"
)

func configCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "config",
		Short:   "Write, check and show the configuration",
		Example: "  ema config init\n  ema config validate\n  ema config show --origin\n  ema config set downloads.max_concurrent_downloads 4",
	}
	cmd.AddCommand(configInit(a), configShow(a), configValidate(a), configSchema(a), configSet(a), configUnset(a), configProfile(a))
	return cmd
}

func configInit(a *app) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "init [FILE]",
		Short: "Write a commented configuration file",
		Long: "Writes every key with its description and default, commented out, so that the file changes nothing by itself.\n" +
			"Without FILE it goes to --config, $EMA_CONFIG, or ema.yaml in $XDG_CONFIG_HOME/ema (~/.config/ema). - is stdout.",
		Example: "  ema config init\n  ema config init ./ema.yaml\n  ema config init - | less",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			content, err := config.Initial()
			if err != nil {
				return err
			}
			file, err := a.newConfigFile(args)
			if err != nil {
				return err
			}
			if file == "-" {
				_, err := a.stdout.Write(content)
				return err
			}
			if err := writeConfig(file, content, force); err != nil {
				return err
			}
			return a.result(map[string]string{"file": file}, func(w io.Writer) error {
				_, err := fmt.Fprintln(w, file)
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "replace a file that is there")
	return cmd
}

// newConfigFile is where a fresh configuration goes.
func (a *app) newConfigFile(args []string) (string, error) {
	file := a.getenv("EMA_CONFIG")
	if a.configFile != "" {
		file = a.configFile
	}
	if len(args) > 0 {
		file = args[0]
	}
	if file == "" {
		dir := a.getenv("XDG_CONFIG_HOME")
		if home := a.getenv("HOME"); !filepath.IsAbs(dir) && home != "" {
			dir = filepath.Join(home, ".config")
		}
		if dir == "" {
			return "", &model.Error{Op: "write a configuration", Class: model.Usage, Err: errors.New("neither XDG_CONFIG_HOME nor HOME is set"), Hint: "name a file"}
		}
		file = filepath.Join(dir, "ema", "ema.yaml")
	}
	if ending := strings.ToLower(filepath.Ext(file)); file != "-" && ending != ".yaml" && ending != ".yml" {
		return "", &model.Error{Op: "write a configuration", Class: model.Usage, File: file, Err: errors.New("comments need YAML"), Hint: "name a file that ends in .yaml"}
	}
	return file, nil
}

// writeConfig creates the file, readable by its owner only, since it may come to hold a database password.
func writeConfig(file string, content []byte, force bool) (err error) {
	failed := func(err error) error {
		return &model.Error{Op: "write a configuration", Class: model.DiskError, Err: err, Hint: "choose another file"}
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return failed(err)
	}
	mode := os.O_EXCL
	if force {
		mode = os.O_TRUNC
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY|mode, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return &model.Error{Op: "write a configuration", Class: model.Usage, File: file, Err: errors.New("the file exists"), Hint: "use --force to replace it"}
	}
	if err != nil {
		return failed(err)
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return failed(err)
	}
	return nil
}

func configShow(a *app) *cobra.Command {
	var origin bool
	cmd := &cobra.Command{
		Use:     "show",
		Short:   "Print the effective configuration",
		Long:    "Prints the values that hold here, as YAML or with --json; secrets are hidden.",
		Example: "  ema config show\n  ema config show --origin\n  EMA_LOG__LEVEL=debug ema config show --json",
		RunE: func(*cobra.Command, []string) error {
			e, err := a.settings()
			if err != nil {
				return err
			}
			answer := struct {
				summary
				Config  map[string]any    `json:"config"`
				Origins map[string]string `json:"origins,omitempty"`
			}{summary: summarize(e), Config: e.Values()}
			if origin {
				answer.Origins = e.Origins()
			}
			return a.result(answer, func(w io.Writer) error {
				_, err := fmt.Fprintln(w, "# "+answer.title())
				return errors.Join(err, e.WriteYAML(w, origin), answer.remarks(w, "# "))
			})
		},
	}
	cmd.Flags().BoolVar(&origin, "origin", false, "say where each value came from")
	return cmd
}

func configValidate(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "validate [FILE]",
		Short:   "Check the configuration and report all mistakes at once",
		Long:    "Checks FILE, or the configuration file that is found, together with flags and environment.",
		Example: "  ema config validate\n  ema config validate ./ema.yaml && systemctl reload ema",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			file := a.configFile
			if len(args) > 0 {
				file = args[0]
			}
			e, err := a.load(file)
			if err != nil {
				return err
			}
			s := summarize(e)
			answer := struct {
				summary
				Valid bool `json:"valid"`
			}{s, true}
			return a.result(answer, func(w io.Writer) error {
				_, err := fmt.Fprintln(w, s.title()+": valid")
				return errors.Join(err, s.remarks(w, ""))
			})
		},
	}
}

// A summary is what is to know about a configuration besides its values.
type summary struct {
	File      string           `json:"file"`
	Warnings  []config.Warning `json:"warnings"`
	NotActive []string         `json:"not_active"`
}

func summarize(e *config.Effective) summary {
	return summary{File: e.File, Warnings: append([]config.Warning{}, e.Warnings...), NotActive: append([]string{}, e.Inactive()...)}
}

func (s summary) title() string {
	if s.File == "" {
		return "no configuration file"
	}
	return s.File
}

// remarks prints the warnings, and the keys that somebody set and that do not act yet.
func (s summary) remarks(w io.Writer, prefix string) error {
	for _, warning := range s.Warnings {
		if _, err := fmt.Fprintf(w, "%swarning: %v\n", prefix, warning); err != nil {
			return err
		}
	}
	if len(s.NotActive) == 0 {
		return nil
	}
	_, err := fmt.Fprintf(w, "%snot active yet: %s\n", prefix, strings.Join(s.NotActive, ", "))
	return err
}

func configSchema(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "schema",
		Short:   "Print a JSON Schema of the configuration file, for editors",
		Example: "  ema config schema > ema.schema.json",
		RunE: func(*cobra.Command, []string) error {
			schema, err := config.Schema()
			if err != nil {
				return err
			}
			_, err = a.stdout.Write(schema)
			return err
		},
	}
}
