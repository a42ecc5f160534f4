package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"ema/internal/model"
)

// files says how many files: "1 file", "12 files".
func files(n int) string { return count(n, "file", "files") }

// duration says how long something took, to the tenth of a second under a minute.
func duration(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%d:%02d min", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%d:%02d h", int(d.Hours()), int(d.Minutes())%60)
}

// clock is a duration for a column that must not jump: "0:07", "12:34", "3:07:09", "4d 03h".
func clock(d time.Duration) string {
	s := int64(d.Round(time.Second) / time.Second)
	switch {
	case s < 3600:
		return fmt.Sprintf("%d:%02d", s/60, s%60)
	case s < 24*3600:
		return fmt.Sprintf("%d:%02d:%02d", s/3600, s/60%60, s%60)
	}
	return fmt.Sprintf("%dd %02dh", s/86400, s/3600%24)
}

// rateOf is the mean number of bytes per second.
func rateOf(n model.Bytes, took time.Duration) model.Bytes {
	return model.Bytes(float64(n) / max(took.Seconds(), 1e-3))
}

// shellLine is a command line that a shell reads as these words.
func shellLine(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = shellWord(w)
	}
	return strings.Join(quoted, " ")
}

func shellWord(w string) string {
	harmless := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:@=,+%", r)
	}
	if w != "" && strings.IndexFunc(w, func(r rune) bool { return !harmless(r) }) < 0 {
		return w
	}
	return "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
}

// count says how many of something there are.
func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + many
}

// isAre is the verb that goes with n things.
func isAre(n int) string {
	if n == 1 {
		return " is"
	}
	return " are"
}
