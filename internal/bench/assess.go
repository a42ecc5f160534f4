package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"time"

	"ema/internal/host"
	"ema/internal/model"
)

// Suites are the names of all suites, in the order in which they run.
func Suites() []string { return []string{"downloads", "api", "storage", "system"} }

// The three endpoints that the suite api asks.
const (
	endpointStatus    = "/api/v1/models/status/detailed"
	endpointHealth    = "/api/v1/models/health"
	endpointAnalytics = "/api/v1/models/analytics"
)

// requests are what each endpoint gets in one round.
const requests = 100

// A Place is a folder of a tier.
type Place struct {
	Tier string // hot, warm, cold
	Dir  string // exists
}

// AssessSettings say what to measure, and where.
type AssessSettings struct {
	Suites  []string
	Full    bool        // the larger sizes
	Size    model.Bytes // of the file of the suite storage; 0 = 256 MiB, or 512 MiB when Full. A download is a quarter of it
	Repeats int         // exactly so many; 0 = at least six, and then until the medians are within 5 %, or time is up

	Program string   // this program
	Name    string   // as which it is called
	Environ []string // its environment, from which what concerns ema and hubs is taken out
	Profile string   // the value of optimization_profile; empty = none
	Places  []Place  // the first is that of the store; each gets a folder that is removed in the end

	Progress func(what string)                                     // what begins; nil = not
	Course   *Course                                               // that tells how far it is; nil = none
	exactly  bool                                                  // Repeats are not only the least
	Free     func(ctx context.Context, dir string) (uint64, error) // bytes; nil = as the file system says
}

// An Assessment is what a benchmark has measured. Its first three fields are as other programs know them.
type Assessment struct {
	Timestamp       float64  `json:"timestamp"` // seconds since 1970
	Results         Results  `json:"results"`
	Recommendations []string `json:"recommendations"`

	Version    string            `json:"version"`
	Suites     []string          `json:"suites"`
	Full       bool              `json:"full_assessment"`
	Size       model.Bytes       `json:"size_bytes"` // of the file of the suite storage
	Seconds    float64           `json:"seconds"`    // that all of it took
	Machine    Machine           `json:"machine"`    // on which it was measured
	Metrics    map[string]Metric `json:"metrics"`    // all that can be compared, by name
	Noisy      map[string]string `json:"noisy"`      // of those, the ones whose repeats differ too much to say much; and how much
	Unknown    map[string]string `json:"unknown"`    // what was not measured, and why
	Comparison *Comparison       `json:"comparison,omitempty"`
}

// Results are those of the suites; nil where one did not run.
type Results struct {
	Downloads *DownloadResults           `json:"downloads"`
	API       map[string]*EndpointResult `json:"api"`
	Storage   []*StorageResult           `json:"storage"`
	System    *SystemResult              `json:"system"`
}

// A Comparison is what a baseline says about an assessment.
type Comparison struct {
	Baseline  string  `json:"baseline"`  // its file
	Timestamp float64 `json:"timestamp"` // of the baseline
	Threshold float64 `json:"threshold"` // 0.2 is 20 %
	Compared  int     `json:"compared"`  // metrics that both have
	// Before are their medians in the baseline.
	Before      map[string]float64 `json:"before"`
	Regressions []Regression       `json:"regressions"`
	// NotJudged are metrics that are so noisy that Threshold is within the noise, and why.
	NotJudged map[string]string `json:"not_judged"`
	Warnings  []string          `json:"warnings"` // such as that the baseline is of another machine; never null
}

// mostTogether is after how long whatever runs is cut off.
const mostTogether = 3 * time.Minute

// leastRepeats are those of which the median's interval can be told with 95 %; mostRepeats are more than enough.
const leastRepeats, mostRepeats = 6, 60

// lasting bounds how long a suite goes on repeating. What has begun is ended, so that it may take somewhat longer.
func (s AssessSettings) lasting(suite string) time.Duration {
	all := map[string]time.Duration{"downloads": 48 * time.Second, "api": 18 * time.Second, "storage": 80 * time.Second, "system": 6 * time.Second}[suite]
	if !s.Full {
		all /= 3
	}
	return all
}

// FileSize is the size of the file of the suite storage. Only what was measured with the same one can be compared.
func (s AssessSettings) FileSize() model.Bytes {
	switch {
	case s.Size != 0:
		return s.Size
	case s.Full:
		return 512 * model.MiB
	}
	return 256 * model.MiB
}

// complete fills in what is left open, and judges it.
func (s AssessSettings) complete() (AssessSettings, error) {
	if len(s.Suites) == 0 {
		s.Suites = Suites()
	}
	for _, name := range s.Suites {
		if !slices.Contains(Suites(), name) {
			return s, &model.Error{Op: "benchmark", Class: model.Usage, Err: fmt.Errorf("there is no suite %q; there are downloads, api, storage and system", name)}
		}
	}
	s.Size = s.FileSize()
	if s.Size < 4*model.MiB || s.Size > 16*model.GiB {
		return s, &model.Error{Op: "benchmark", Class: model.Usage, Err: fmt.Errorf("a size of %s: want 4 MiB to 16 GiB", s.Size)}
	}
	if s.exactly = s.Repeats != 0; !s.exactly {
		s.Repeats = leastRepeats
	}
	if s.Free == nil {
		s.Free = func(ctx context.Context, dir string) (uint64, error) {
			_, free, err := host.Volume(ctx, dir)
			return free, err
		}
	}
	if s.Progress == nil {
		s.Progress = func(string) {}
	}
	if s.Course == nil {
		s.Course = &Course{}
	}
	if len(s.Places) == 0 {
		return s, &model.Error{Op: "benchmark", Class: model.Usage, Err: errors.New("there is no folder to measure in")}
	}
	return s, nil
}

// Estimate is how long an assessment takes at least, on a disk that writes 1 GB/s where nothing is noisy, and at most.
func (s AssessSettings) Estimate() (least, most time.Duration, err error) {
	if s, err = s.complete(); err != nil {
		return 0, 0, err
	}
	least, most = s.estimate()
	return least, most, nil
}

// Fits refuses settings that mean nothing, and what would fill a disk, as Assess does.
func (s AssessSettings) Fits(ctx context.Context) error {
	s, err := s.complete()
	if err != nil {
		return err
	}
	return s.room(ctx)
}

// estimate is Estimate of settings that are complete.
func (s AssessSettings) estimate() (least, most time.Duration) {
	pass := time.Duration(float64(s.Size) / 1e9 * float64(s.Repeats) * float64(time.Second))
	for _, name := range s.Suites {
		once := map[string]time.Duration{
			"downloads": 4*time.Second + pass, "api": 4 * time.Second, "storage": time.Duration(len(s.Places)) * (5*pass + time.Second), "system": 3 * time.Second,
		}[name]
		least, most = least+min(once, s.lasting(name)), most+s.lasting(name)
	}
	return least, min(most+10*time.Second, mostTogether)
}

// room refuses to fill a disk: no more than a tenth of what is free on it is ever used.
func (s AssessSettings) room(ctx context.Context) error {
	for _, p := range s.Places {
		free, err := s.Free(ctx, p.Dir)
		if err != nil {
			return &model.Error{Op: "benchmark", Class: model.DiskError, File: p.Dir, Err: err}
		}
		if want := uint64(s.Size); want > free/10 {
			return &model.Error{
				Op: "benchmark", Class: model.DiskFull, File: p.Dir, Short: model.Bytes(want*10 - free),
				Err:  fmt.Errorf("measuring takes %s, which is more than a tenth of the %s that are free", s.Size, model.Bytes(free)),
				Hint: "free some space, or measure with a smaller --size",
			}
		}
	}
	return nil
}

// Assess measures. Whatever it puts into the places is removed when it returns. What could not be measured is told in
// Unknown, and its suite's errors are returned with the assessment. An error of class DiskFull means that nothing was
// begun, since it would not have fitted well.
func Assess(ctx context.Context, s AssessSettings) (a Assessment, err error) {
	s, err = s.complete()
	if err != nil {
		return Assessment{}, err
	}
	begun := time.Now()
	a = Assessment{
		Timestamp: float64(begun.UnixMicro()) / 1e6, Suites: s.Suites, Full: s.Full, Size: s.Size, Recommendations: []string{},
		Metrics: map[string]Metric{}, Unknown: map[string]string{}, Noisy: map[string]string{}, Machine: machineOf(s.Places[0].Dir),
	}
	if err := s.room(ctx); err != nil {
		return a, err
	}
	bounded, stop := context.WithTimeout(ctx, mostTogether)
	defer stop()
	s.Course.begin(s, begun)
	show := s.Progress
	s.Progress = func(what string) {
		s.Course.say(what)
		show(what)
	}
	r := &assessor{AssessSettings: s, Assessment: &a}
	for _, name := range Suites() {
		if !slices.Contains(s.Suites, name) {
			a.Unknown[name] = "not asked for"
			continue
		}
		s.Course.enter(name, time.Now())
		suite := map[string]func(context.Context) error{"downloads": r.downloads, "api": r.api, "storage": r.storage, "system": r.system}[name]
		e := suite(bounded)
		if ctx.Err() != nil {
			if left := cleanup(e); left != nil {
				return a, errors.Join(ctx.Err(), left)
			}
			return a, ctx.Err()
		}
		if e != nil {
			a.Unknown[name] = e.Error()
			err = errors.Join(err, fmt.Errorf("benchmark: %s: %w", name, e))
		}
	}
	s.Course.end(time.Now())
	a.Recommendations = recommend(a.Results)
	a.Seconds = time.Since(begun).Seconds()
	return a, err
}

// An assessor is one benchmark while it goes on.
type assessor struct {
	AssessSettings
	*Assessment
}

// A cleanupError says that something stays that should have been removed.
type cleanupError struct{ err error }

func (e *cleanupError) Error() string { return e.err.Error() }
func (e *cleanupError) Unwrap() error { return e.err }

// cleanup is the part of an error that is still worth telling after Ctrl-C.
func cleanup(err error) error {
	if left, ok := errors.AsType[*cleanupError](err); ok {
		return left
	}
	return nil
}

// LeftBehind is what an error of Assess says of what could not be removed; nil when all was.
func LeftBehind(err error) error { return cleanup(err) }

// within runs do with a folder of its own inside dir, and removes that folder whatever happens.
func within(dir string, do func(folder string) error) (err error) {
	folder, err := os.MkdirTemp(dir, ".ema-benchmark-")
	if err != nil {
		return &model.Error{Op: "benchmark", Class: model.DiskError, File: dir, Err: err, Hint: "this user needs to write there"}
	}
	defer func() {
		if left := os.RemoveAll(folder); left != nil {
			err = errors.Join(err, &cleanupError{left})
		}
	}()
	return do(folder)
}

// note keeps a metric, unless nothing was measured.
func (r *assessor) note(name string, repeats []float64, unit string, better Better) *float64 {
	if len(repeats) == 0 {
		return nil
	}
	m := MetricOf(repeats, unit, better)
	r.Metrics[name] = m
	switch spread := m.Spread(); {
	case math.IsInf(spread, 1) && !r.exactly:
		r.Noisy[name] = fmt.Sprintf("time was up after %d repeats, which say nothing about how sure the median is", m.Repeats)
	case spread > loose && !math.IsInf(spread, 1):
		r.Noisy[name] = fmt.Sprintf("the machine is too noisy: after %d repeats the median may still be off by %.0f %%", m.Repeats, 100*spread)
	}
	return &m.Median
}

// repeat calls do as often as the settings say and until enough says that it suffices, or until so much time is over.
func (r *assessor) repeat(ctx context.Context, atMost time.Duration, enough func() bool, do func(n int) error) error {
	end := time.Now().Add(atMost)
	for n := 0; n < r.Repeats || !r.exactly && n < mostRepeats && !enough(); n++ {
		if n > 0 && time.Now().After(end) {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := do(n); err != nil {
			return err
		}
	}
	return nil
}

// recommend draws the conclusions.
func recommend(r Results) []string {
	all := []string{}
	if e := r.API[endpointStatus]; e != nil && e.Average > 100 {
		all = append(all, "Consider enabling response caching for model status endpoint")
	}
	if d := r.Downloads; d != nil && d.Single != nil && len(d.Concurrent) > 0 && mean(d.Concurrent) > *d.Single*2 {
		all = append(all, "Consider reducing concurrent downloads or increasing bandwidth")
	}
	return all
}
