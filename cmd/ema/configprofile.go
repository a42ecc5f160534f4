package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"ema/client"
	"ema/internal/bench"
	"ema/internal/config"
)

// noProfile is how the command line calls what the key calls by an empty value.
const noProfile = "none"

// A profileRequest is the command line of ema config profile.
type profileRequest struct {
	name           string // empty: all of them
	apply, measure bool
	size           int64 // MiB, as of ema benchmark
	repeats        int
}

func configProfile(a *app) *cobra.Command {
	var r profileRequest
	cmd := &cobra.Command{
		Use:   "profile [NAME]",
		Short: "Show what a profile would change here, measure what that brings, and choose one",
		Long: "A profile is a set of defaults for one purpose: high_throughput, low_latency or resource_constrained; none is no profile.\n" +
			"What somebody has set counts more than a profile, and stays. Without --apply nothing changes.\n\n" +
			"--measure measures downloads and the API as \"ema benchmark\" does, on this machine, with the profile that holds and with NAME,\n" +
			"twice each and in turns, so that a machine that becomes slower meanwhile is not taken for an effect. Only the profiles differ\n" +
			"then: other settings of this store are not part of it. A difference is called one if the two medians' intervals of 95 % do not meet.",
		Example: "  ema config profile\n  ema config profile high_throughput\n  ema config profile low_latency --measure --apply\n  ema config profile none --apply",
		Args:    cobra.MaximumNArgs(1),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
			return append(config.Profiles(), noProfile), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				r.name = args[0]
			}
			return a.configProfile(cmd.Context(), r)
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&r.apply, "apply", false, "let the profile hold, now and for good, as \"ema config set optimization_profile\" does")
	flags.BoolVar(&r.measure, "measure", false, "measure what switching brings; this takes about two minutes")
	flags.Int64Var(&r.size, "size", 0, "with --measure: `MiB`, of which each download is a quarter (default: 256)")
	flags.IntVar(&r.repeats, "repeats", 0, "with --measure: repeat so many `times` in each turn, instead of until the medians are sure")
	return cmd
}

// A measuredProfile is a profile with what switching to it brings.
type measuredProfile struct {
	client.Profile
	From     string           `json:"from"` // the profile that holds now; empty for none
	Measured []profileEffect  `json:"measured,omitempty"`
	Applied  *client.Reloaded `json:"applied,omitempty"`
}

// A profileEffect is a figure under the profile that holds and under another one.
type profileEffect struct {
	Metric string       `json:"metric"`
	Unit   string       `json:"unit"`
	Better bench.Better `json:"better"`
	Now    float64      `json:"now"` // medians
	Then   float64      `json:"then"`
	// Change is by which part of Now the figure would be better, or worse if negative: 0.1 is a tenth faster. It is null where Now is 0.
	Change *float64 `json:"change"`
	Sure   bool     `json:"sure"` // the intervals of the two medians, of 95 % each, do not meet
}

func (a *app) configProfile(ctx context.Context, r profileRequest) error {
	b, value := benchmark{suites: []string{"downloads", "api"}, size: r.size, repeats: r.repeats}, r.name
	if r.name == noProfile {
		value = ""
	}
	switch {
	case value != "" && !slices.Contains(config.Profiles(), value):
		return &usageError{fmt.Errorf("there is no profile %q; there are %s and %s", r.name, strings.Join(config.Profiles(), ", "), noProfile)}
	case r.name == "" && (r.apply || r.measure):
		return &usageError{errors.New("name the profile, e.g. ema config profile high_throughput --measure")}
	case !r.measure && (r.size != 0 || r.repeats != 0):
		return &usageError{errors.New("--size and --repeats are for --measure")}
	case r.measure && a.named() != "":
		return &usageError{errors.New("--measure measures this machine; leave --server out, and run it there")}
	}
	if err := b.check(); err != nil {
		return err
	}
	all, err := a.profiles(ctx)
	if err != nil {
		return err
	}
	if r.name == "" {
		return a.result(all, func(w io.Writer) error { return printProfiles(w, all) })
	}
	found := measuredProfile{From: all.Profile}
	for _, p := range all.Profiles {
		if p.Name == value {
			found.Profile = p
		}
	}
	if r.measure {
		if found.Measured, err = a.measureProfiles(ctx, b, all.Profile, value); err != nil {
			return err
		}
	}
	if r.apply {
		patch, err := config.Set("optimization_profile", value)
		if err != nil {
			return err
		}
		done, _, err := a.makeChange(ctx, patch)
		if err != nil {
			return err
		}
		found.Applied = &done
	}
	for _, w := range found.Warnings {
		fmt.Fprintf(a.stderr, "ema: note: %s: %s\n", w.Key, w.Message)
	}
	return a.result(found, func(w io.Writer) error { return printProfile(w, found) })
}

// profiles are all of them, and none, with what each would change: in the daemon, or where there is none.
func (a *app) profiles(ctx context.Context) (client.Profiles, error) {
	daemon, found, err := a.remote(ctx)
	switch {
	case err != nil:
		return client.Profiles{}, err
	case found:
		defer daemon.Close()
		return daemon.ConfigProfiles(ctx)
	}
	now, err := a.settings()
	if err != nil {
		return client.Profiles{}, err
	}
	file := overlayFile(now.Config)
	return profilesFrom(now, func(patch json.RawMessage) (changing, error) {
		return change(now, file, patch, func(o config.Overlay) (*config.Effective, error) { return a.loadOver(a.configFile, &o) })
	})
}

// Profiles are all of them, with what each would change in the daemon.
func (b board) Profiles(context.Context) (client.Profiles, error) {
	b.d.reloading.Lock()
	defer b.d.reloading.Unlock()
	b.d.mu.Lock()
	now := b.d.settings
	b.d.mu.Unlock()
	return profilesFrom(now, func(patch json.RawMessage) (changing, error) {
		c, _, err := b.judge(patch)
		return c, err
	})
}

// profilesFrom finds out what each profile would change in the settings that hold.
func profilesFrom(now *config.Effective, judge func(json.RawMessage) (changing, error)) (client.Profiles, error) {
	all := client.Profiles{Profile: now.OptimizationProfile, Profiles: []client.Profile{}}
	for _, name := range append(config.Profiles(), "") {
		patch, err := config.Set("optimization_profile", name)
		if err != nil {
			return all, err
		}
		c, err := judge(patch)
		if err != nil {
			return all, err
		}
		p := client.Profile{Name: name, Changes: []client.SettingChange{}, Warnings: append([]client.SettingWarning{}, c.warnings()...)}
		for _, d := range config.Differences(now, c.next) {
			if d.Key != "optimization_profile" {
				p.Changes = append(p.Changes, client.SettingChange{Key: d.Key, Now: d.From, Then: d.To, RestartRequired: d.Restart})
			}
		}
		all.Profiles = append(all.Profiles, p)
	}
	return all, nil
}

// measureProfiles measures with the profile that holds and with the other one: that, this, this and that again, so that what changes
// steadily on the machine meanwhile weighs on both alike.
func (a *app) measureProfiles(ctx context.Context, b benchmark, holds, other string) ([]profileEffect, error) {
	st, err := a.store()
	if err != nil {
		return nil, err
	}
	e, err := a.settings()
	if err != nil {
		return nil, err
	}
	m, err := b.prepare(a.environ, e, st)
	if err != nil {
		return nil, err
	}
	var now, then []bench.Assessment
	for i, profile := range []string{holds, other, other, holds} {
		m.Profile = profile
		found, err := a.measure(ctx, m, fmt.Sprintf("turn %d of 4, profile %s: ", i+1, cmp.Or(profile, noProfile)))
		if err != nil {
			return nil, err
		}
		if i == 0 || i == 3 {
			now = append(now, found)
		} else {
			then = append(then, found)
		}
	}
	return effects(now, then), nil
}

// effects are those of switching, by all repeats of the assessments on either side.
func effects(now, then []bench.Assessment) (all []profileEffect) {
	together := func(of []bench.Assessment) map[string]bench.Metric {
		metrics := map[string]bench.Metric{}
		for _, a := range of {
			for name, m := range a.Metrics {
				metrics[name] = bench.MetricOf(slices.Concat(metrics[name].Samples, m.Samples), m.Unit, m.Better)
			}
		}
		return metrics
	}
	before, after := together(now), together(then)
	for _, name := range slices.Sorted(maps.Keys(after)) {
		was, known := before[name]
		if !known {
			continue
		}
		is := after[name]
		e := profileEffect{Metric: name, Unit: is.Unit, Better: is.Better, Now: was.Median, Then: is.Median}
		if was.Median != 0 {
			change := (is.Median - was.Median) / math.Abs(was.Median)
			if is.Better == bench.Lower {
				change = -change
			}
			e.Change = &change
		}
		if was.Low != nil && is.Low != nil {
			e.Sure = *was.High < *is.Low || *is.High < *was.Low
		}
		all = append(all, e)
	}
	return all
}

func printProfiles(w io.Writer, all client.Profiles) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "PROFILE\tHOLDS\tWOULD CHANGE")
	for _, p := range all.Profiles {
		holds, what := "", fmt.Sprintf("%d settings", len(p.Changes))
		switch {
		case p.Name == all.Profile:
			holds, what = "yes", ""
		case len(p.Changes) == 0:
			what = "nothing: what it sets is set already"
		case len(p.Changes) == 1:
			what = p.Changes[0].Key
		}
		fmt.Fprintf(t, "%s\t%s\t%s\n", cmp.Or(p.Name, noProfile), holds, what)
	}
	return t.Flush()
}

func printProfile(w io.Writer, p measuredProfile) error {
	name := cmp.Or(p.Name, noProfile)
	switch {
	case p.Name == p.From:
		if _, err := fmt.Fprintf(w, "%s holds already\n", name); err != nil {
			return err
		}
	case len(p.Changes) == 0:
		if _, err := fmt.Fprintf(w, "%s would change nothing here: what it sets is set already\n", name); err != nil {
			return err
		}
	default:
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "SETTING\tNOW\tWITH "+name+"\tACTS")
		for _, c := range p.Changes {
			acts := "at once"
			if c.RestartRequired {
				acts = "after a restart of the daemon"
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", c.Key, worded(c.Now), worded(c.Then), acts)
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	if len(p.Measured) > 0 {
		fmt.Fprintln(w)
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "MEASURED\tNOW\tWITH "+name+"\tEFFECT")
		for _, e := range p.Measured {
			fmt.Fprintf(t, "%s\t%.4g %s\t%.4g %s\t%s\n", e.Metric, e.Now, e.Unit, e.Then, e.Unit, e.effect())
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	if p.Applied == nil {
		return nil
	}
	text := fmt.Sprintf("the profile is %s now", name)
	if p.Applied.RestartRequired {
		text += "; start the daemon again, so that all of it acts"
	}
	_, err := fmt.Fprintln(w, text)
	return err
}

// effect says what it is.
func (e profileEffect) effect() string {
	switch {
	case !e.Sure:
		return "none that is more than noise"
	case e.Change == nil:
		return "differs"
	case *e.Change > 0:
		return fmt.Sprintf("%.0f %% better", 100**e.Change)
	}
	return fmt.Sprintf("%.0f %% worse", -100**e.Change)
}

// worded is a setting's value in words.
func worded(v any) string {
	if text, ok := v.(string); ok {
		return cmp.Or(text, "(empty)")
	}
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(text)
}
