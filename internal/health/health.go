// Package health judges how well a model is, from what checks have found: it reads nothing itself.
//
// A score is from 0 to 1, and null where nobody can know it. How they come about:
//
//	integrity    share × proof
//	  share      bytes of files that are there and right, of all; at most 0.5 when any file is missing or damaged,
//	             since a model with one wrong file does not load as it should
//	  proof      1 while the last full check is no older than two intervals, then falling evenly to 0.8 at ten; 0.8
//	             when the bytes were never all read here
//	performance  how long its users say that it takes, and how fast full checks have read it, against its own history (see the
//	             analytics): the worse of both
//	health       integrity × (3 + performance) / 4; without a performance just the integrity
package health

import (
	"fmt"
	"time"

	"ema/internal/model"
)

// The states of a file, as checks find them.
const (
	OK         = "ok"
	Missing    = "missing"
	Damaged    = "damaged"
	Unknown    = "unknown"    // it has no hash to compare with
	Unreadable = "unreadable" // nobody knows how it is
	Changed    = "changed"    // its size is right, and somebody wrote into it since it was proven
)

// A File is one file of a model, as the last check has found it.
type File struct {
	Path    string
	Size    model.Bytes
	State   string
	Damaged model.Bytes // of Size, what is known to be wrong
	Notes   []string    // what is odd about it, in words
}

// Facts are what is known of one revision of a model.
type Facts struct {
	Files []File
	// Aside are files that are kept from whoever loads the model, each with the reason.
	Aside []string
	// Checked is when all its bytes were read last, and found to be what they should; zero when they never were.
	Checked time.Time
	// Interval is how often that should happen; 0 = never by itself.
	Interval time.Duration
	// Used is how fast its users find it, and Read how fast its bytes are read, against before; nil when nobody knows.
	Used, Read *float64
	// Source reports whether what is damaged can be fetched again; what was tried in vain is in Failure, in words.
	Source  bool
	Failure string
	Now     time.Time
}

// A Verdict is how well a model is.
type Verdict struct {
	Overall                        model.Condition
	Health, Integrity, Performance *float64
	Issues                         []string // in words, the worst first
	Recommendations                []string // what to do, in the imperative; one for each kind of issue
}

const (
	broken     = 0.5 // the best integrity of a model with a file that is missing or damaged
	unproven   = 0.8 // the proof of a model whose bytes were never all read
	slow       = 0.5 // the performance below which a model is degraded
	mostIssues = 20  // that are told one by one
)

// Judge says how well a model is that is called name on a command line.
func Judge(name string, f Facts) Verdict {
	v := Verdict{Performance: worse(f.Used, f.Read), Issues: []string{}, Recommendations: []string{}}
	var bad, unread, changed, odd int
	var right, all model.Bytes
	for _, state := range []string{Damaged, Missing, Unreadable, Changed, Unknown, OK} {
		for _, file := range f.Files {
			if file.State != state {
				continue
			}
			all += file.Size
			switch state {
			case Missing:
				bad++
				v.issue("%s is missing", file.Path)
			case Damaged:
				bad++
				if right += file.Size - file.Damaged; file.Damaged == 0 {
					right -= file.Size
				}
				v.issue("%s is damaged%s", file.Path, extent(file))
			case Unreadable:
				unread++
				v.issue("%s could not be read%s", file.Path, note(file))
			case Changed:
				changed++
				right += file.Size
				v.issue("%s was written to since it was verified", file.Path)
			default:
				right += file.Size
				if len(file.Notes) > 0 {
					odd++
					v.issue("%s: %s", file.Path, file.Notes[0])
				}
			}
		}
	}
	for _, file := range f.Aside {
		v.issue("quarantined: %s", file)
	}
	if more := len(v.Issues) - mostIssues; more > 0 {
		v.Issues = append(v.Issues[:mostIssues], fmt.Sprintf("and %d more files", more))
	}
	v.score(f, right, all, bad, unread)
	v.conclude(name, f, bad, unread, changed, odd)
	return v
}

func (v *Verdict) issue(form string, values ...any) {
	v.Issues = append(v.Issues, fmt.Sprintf(form, values...))
}

func (v *Verdict) advise(form string, values ...any) {
	v.Recommendations = append(v.Recommendations, fmt.Sprintf(form, values...))
}

// extent is how much of a damaged file is wrong.
func extent(f File) string {
	if f.Damaged == 0 {
		return note(f)
	}
	return fmt.Sprintf(" in %s of %s", f.Damaged, f.Size)
}

func note(f File) string {
	if len(f.Notes) == 0 {
		return ""
	}
	return ": " + f.Notes[0]
}

// score works out the scores. What could not be read leaves them unknown, unless something is known to be bad.
func (v *Verdict) score(f Facts, right, all model.Bytes, bad, unread int) {
	if len(f.Files) == 0 || unread > 0 && bad == 0 {
		return
	}
	share := 1.0
	if all > 0 {
		share = float64(right) / float64(all)
	}
	if bad > 0 {
		share = min(share, broken)
	}
	integrity := share * Proof(f.Now, f.Checked, f.Interval)
	health := integrity
	if v.Performance != nil {
		health *= (3 + *v.Performance) / 4
	}
	v.Integrity, v.Health = &integrity, &health
}

// worse is the worse of two scores of which either may be unknown.
func worse(a, b *float64) *float64 {
	if a == nil || b != nil && *b < *a {
		return b
	}
	return a
}

// Proof is how much a full check is worth that was made at checked, when one should be made every interval.
func Proof(now, checked time.Time, interval time.Duration) float64 {
	if checked.IsZero() {
		return unproven
	}
	if interval <= 0 {
		interval = 30 * 24 * time.Hour
	}
	late := float64(now.Sub(checked)-2*interval) / float64(8*interval)
	return 1 - (1-unproven)*min(max(late, 0), 1)
}

// conclude says in one word how the model is, and what to do.
func (v *Verdict) conclude(name string, f Facts, bad, unread, changed, odd int) {
	v.Overall = model.Healthy
	if len(f.Files) == 0 || f.Checked.IsZero() && bad == 0 {
		v.Overall = model.Uncertain
		v.advise("read all of it once: ema verify %s", name)
	}
	if f.Used != nil && *f.Used < slow {
		v.Overall = model.Degraded
		v.issue("its users find it slower than before: %.0f %% of its usual speed", 100**f.Used)
		v.advise("see what holds it up: is it on a colder tier, out of memory, or is the machine busy?")
	}
	if f.Read != nil && *f.Read < slow {
		v.Overall = model.Degraded
		v.issue("its files are read more slowly than before: at %.0f %% of the speed", 100**f.Read)
		v.advise("see whether its disk is as fast as it was: ema benchmark --suite storage --compare")
	}
	if odd > 0 {
		v.Overall = model.Degraded
		v.advise("look at the files that are named before a program loads them")
	}
	if len(f.Aside) > 0 {
		v.Overall = model.Degraded
		v.advise("do without what is quarantined, or look at it: with health.quarantine off, ema pull %s installs it", name)
	}
	if changed > 0 {
		v.Overall = model.Degraded
		v.advise("find out whether what was written is right: ema verify %s", name)
	}
	if unread > 0 {
		v.Overall = model.Uncertain
		v.advise("see the permissions of the files and the kernel's log, then: ema verify %s", name)
	}
	if bad > 0 {
		v.Overall = model.Corrupted
		switch {
		case f.Failure != "":
			v.issue("its repair failed: %s", f.Failure)
			v.advise("take a good copy from elsewhere: ema store adopt DIR %s; nothing was removed", name)
		case f.Source:
			v.advise("fetch again what is missing or damaged: ema repair %s", name)
		default:
			v.advise("no source is known: take a good copy from elsewhere: ema store adopt DIR %s; nothing was removed", name)
		}
	}
}
