package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A view is what the kernel shows of a thread to everybody.
type view struct {
	Nice, Policy int
	Cores        string
	IO           int
}

// look reads it from /proc, and not the way in which the code under test does.
func look(tid int) (view, error) {
	dir := filepath.Join("/proc/self/task", strconv.Itoa(tid))
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return view{}, err
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:])) // from the third on
	var v view
	if v.Nice, err = strconv.Atoi(fields[19-3]); err != nil {
		return view{}, err
	}
	if v.Policy, err = strconv.Atoi(fields[41-3]); err != nil {
		return view{}, err
	}
	status, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		return view{}, err
	}
	for line := range strings.Lines(string(status)) {
		if list, ok := strings.CutPrefix(line, "Cpus_allowed_list:"); ok {
			v.Cores = strings.TrimSpace(list)
		}
	}
	v.IO, err = ioPriority(tid)
	return v, err
}

// see looks at the thread of a task, from another one.
func see(t *testing.T, p *Pool, io IOPriority) view {
	t.Helper()
	tid, go_on := make(chan int), make(chan struct{})
	var ended sync.WaitGroup
	ended.Go(func() {
		_ = p.DoAt(context.Background(), io, func(context.Context) error {
			tid <- unix.Gettid()
			<-go_on
			return nil
		})
	})
	v, err := look(<-tid)
	close(go_on)
	ended.Wait()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// ordinary is how threads of this process are that are no pool's.
func ordinary(t *testing.T) view {
	t.Helper()
	v, err := look(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func mayRaise() bool {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NICE, &l); err == nil && l.Cur >= 25 {
		return true
	}
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	return unix.Capget(&head, &data[0]) == nil && data[0].Effective&(1<<unix.CAP_SYS_NICE) != 0
}

func TestATaskRunsOnAThreadOfItsClass(t *testing.T) {
	usual := ordinary(t)
	cores, err := Cores()
	if err != nil {
		t.Fatal(err)
	}
	last := cores[len(cores)-1]
	with := func(change func(*view)) view {
		v := usual
		change(&v)
		return v
	}
	type promise struct {
		class Class
		io    IOPriority
		want  view
	}
	promises := map[string]promise{
		"as the process when nothing is said": {Class{}, "", usual},
		"as the process when that is normal":  {Class{Priority: Normal}, "", usual},
		"after other programs":                {Class{Priority: BelowNormal}, "", with(func(v *view) { v.Nice += 5 })},
		"when nobody else wants to":           {Class{Priority: Idle}, "", with(func(v *view) { v.Policy = unix.SCHED_IDLE })},
		"on the cores of the class":           {Class{Cores: []int{last}}, "", with(func(v *view) { v.Cores = strconv.Itoa(last) })},
		"on those cores that there are":       {Class{Cores: []int{last, 1023, 4095}}, "", with(func(v *view) { v.Cores = strconv.Itoa(last) })},
		"first at the disk":                   {Class{}, IOHigh, with(func(v *view) { v.IO = 2 << 13 })},
		"as usual at the disk":                {Class{}, IONormal, with(func(v *view) { v.IO = 2<<13 | 4 })},
		"last at the disk":                    {Class{}, IOLow, with(func(v *view) { v.IO = 3<<13 | 7 })},
		"with all of it": {
			Class{Idle, []int{last}}, IONormal,
			with(func(v *view) { v.Policy, v.Cores, v.IO = unix.SCHED_IDLE, strconv.Itoa(last), 2<<13|4 }),
		},
	}
	if mayRaise() {
		promises["before other programs"] = promise{Class{Priority: High}, "", with(func(v *view) { v.Nice -= 5 })}
	}
	for name, c := range promises {
		t.Run(name, func(t *testing.T) {
			if v := see(t, newThreads(t).NewPool("test", 1, c.class), c.io); v != c.want {
				t.Errorf("%+v, want %+v", v, c.want)
			}
			if now := ordinary(t); now != usual {
				t.Errorf("the process is now as %+v, and was as %+v", now, usual)
			}
		})
	}
}

func TestATaskDoesNotHaveTheIOPriorityOfTheOneBefore(t *testing.T) {
	p := newThreads(t).NewPool("test", 1, Class{})
	var wait sync.WaitGroup
	began, let := make(chan struct{}), make(chan struct{})
	wait.Go(func() { _ = p.Do(context.Background(), func(context.Context) error { close(began); <-let; return nil }) })
	<-began
	tids := map[int]bool{}
	for i, io := range []IOPriority{IOLow, "", IOHigh, IONormal, ""} {
		for p.queued() < i { // so that all are done by one thread, in this order
			runtime.Gosched()
		}
		wait.Go(func() {
			_ = p.DoAt(context.Background(), io, func(context.Context) error {
				tids[unix.Gettid()] = true
				v, err := look(unix.Gettid())
				if want := map[IOPriority]int{"": 0, IOHigh: 2 << 13, IONormal: 2<<13 | 4, IOLow: 3<<13 | 7}[io]; err != nil || v.IO != want {
					t.Errorf("%q: %d, %v; want %d", io, v.IO, err, want)
				}
				return nil
			})
		})
	}
	for p.queued() < 5 {
		runtime.Gosched()
	}
	close(let)
	wait.Wait()
	if len(tids) != 1 {
		t.Errorf("%d threads", len(tids))
	}
}

func (p *Pool) queued() int {
	_, waiting := p.Load()
	return waiting
}

func TestAChangeActsOnTasksUnderWayAndOnTheNext(t *testing.T) {
	usual := ordinary(t)
	p := newThreads(t).NewPool("test", 1, Class{})
	tid, let := make(chan int), make(chan struct{})
	var wait sync.WaitGroup
	wait.Go(func() {
		_ = p.Do(context.Background(), func(context.Context) error {
			tid <- unix.Gettid()
			<-let
			return nil
		})
	})
	first := <-tid
	p.Configure(1, Class{Priority: Idle})
	if v, err := look(first); err != nil || v.Policy != unix.SCHED_IDLE {
		t.Errorf("under way: %+v, %v", v, err)
	}
	p.Configure(1, Class{Priority: BelowNormal}) // which a thread that is idle may not be allowed to become
	second := make(chan view)
	wait.Go(func() {
		_ = p.Do(context.Background(), func(context.Context) error {
			v, err := look(unix.Gettid())
			if err != nil {
				t.Error(err)
			}
			second <- v
			return nil
		})
	})
	close(let)
	v := <-second
	wait.Wait()
	if v.Policy != usual.Policy || v.Nice != usual.Nice+5 {
		t.Errorf("the next: %+v", v)
	}
}

// Many threads are made while those of a pool are busy, and must not be clones of these.
func TestOrdinaryGoroutinesNeverRunAsTheTasksOfAPool(t *testing.T) {
	usual, err := readAttributes(0)
	if err != nil {
		t.Fatal(err)
	}
	cores, err := Cores()
	if err != nil {
		t.Fatal(err)
	}
	class := Class{Priority: Idle}
	if len(cores) > 1 {
		class.Cores = cores[:1]
	}
	p := newThreads(t).NewPool("test", 8, class)
	var tasks, others sync.WaitGroup
	over := make(chan struct{})
	for range 16 {
		tasks.Go(func() {
			for range 40 {
				_ = p.DoAt(context.Background(), IOLow, func(context.Context) error {
					ready := make(chan struct{})
					go func() { close(ready) }() // by a locked thread: another one must be found, or made, for it
					<-ready
					return nap()
				})
			}
		})
	}
	for range 64 {
		others.Go(func() {
			for {
				now, err := readAttributes(0)
				if err == nil && now != usual {
					err = fmt.Errorf("an ordinary goroutine runs as %+v", now)
				}
				if err = errors.Join(err, nap()); err != nil { // all processors are given away meanwhile
					t.Error(err)
					return
				}
				select {
				case <-over:
					return
				default:
				}
			}
		})
	}
	tasks.Wait()
	close(over)
	others.Wait()
	begun := time.Now()
	for changed := 1; changed > 0; runtime.Gosched() { // a thread needs a moment to end
		all, err := threadsOf(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		changed = 0
		for _, tid := range all {
			if now, err := readAttributes(tid); err == nil && now != usual {
				changed++
			}
		}
		if time.Since(begun) > 30*time.Second {
			t.Fatalf("%d threads keep what was set of them", changed)
		}
	}
}

// nap blocks the thread in the kernel for a moment, which Go does not know of beforehand.
func nap() error {
	pause := unix.NsecToTimespec(int64(200 * time.Microsecond))
	if err := unix.Nanosleep(&pause, nil); err != nil && !errors.Is(err, unix.EINTR) {
		return err
	}
	return nil
}

// What cannot be taken back is tried in a process of its own, which may not raise a priority.
const childDoes = "EMA_HOST_TEST_CHILD"

// A childReport is what it says on stdout.
type childReport struct {
	Told   []string
	Before view
	Views  map[string][]view // by what was done, of all threads
	Pooled map[string]view
}

func child(what string) int {
	r := childReport{Views: map[string][]view{}, Pooled: map[string]view{}}
	fail := func(err error) int {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := unix.Setrlimit(unix.RLIMIT_NICE, &unix.Rlimit{}); err != nil {
		return fail(err)
	}
	threads := NewThreads(func(problem string) { r.Told = append(r.Told, problem) })
	var err error
	if r.Before, err = look(os.Getpid()); err != nil {
		return fail(err)
	}
	pool := threads.NewPool("checks", 0, Class{})
	let := make(chan struct{})
	var wait sync.WaitGroup
	defer wait.Wait()
	defer close(let)
	begin := func(name string) {
		ready := make(chan struct{})
		wait.Go(func() {
			_ = pool.Do(context.Background(), func(context.Context) error {
				r.Pooled[name], _ = look(unix.Gettid())
				close(ready)
				<-let
				return nil
			})
		})
		<-ready
	}
	note := func(name string) error {
		var ready, hold sync.WaitGroup
		more := make(chan struct{})
		for range 10 { // threads that are made now
			ready.Add(1)
			hold.Go(func() {
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
				ready.Done()
				<-more
			})
		}
		ready.Wait()
		all, err := threadsOf(os.Getpid())
		for _, tid := range all {
			if threads.pooled[tid] {
				continue
			}
			if v, err := look(tid); err == nil {
				r.Views[name] = append(r.Views[name], v)
			}
		}
		close(more)
		hold.Wait()
		return err
	}
	switch what {
	case "main":
		begin("before")
		threads.Main(Class{Priority: BelowNormal, Cores: []int{0}})
		begin("after")
		err = note("below_normal")
		threads.Main(Class{Priority: Idle})
		err = errors.Join(err, note("idle"))
		threads.Main(Class{Priority: Normal})
		threads.Main(Class{Priority: Normal})
		err = errors.Join(err, note("normal again"))
	case "raise":
		pool.Configure(0, Class{Priority: High, Cores: []int{4095}})
		begin("first")
		begin("second")
		err = note("high")
	}
	if err = errors.Join(err, json.NewEncoder(os.Stdout).Encode(r)); err != nil {
		return fail(err)
	}
	return 0
}

// inChild does it without the permission to raise priorities.
func inChild(t *testing.T, what string) childReport {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childDoes+"="+what)
	cmd.Stderr = os.Stderr
	var out []byte
	var err error
	var started sync.WaitGroup
	started.Go(func() {
		runtime.LockOSThread() // for good: what this thread has given up it does not get back
		_ = unix.Prctl(unix.PR_CAPBSET_DROP, unix.CAP_SYS_NICE, 0, 0, 0)
		out, err = cmd.Output()
	})
	started.Wait()
	if err != nil {
		t.Fatal(err)
	}
	var r childReport
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("%s: %v", out, err)
	}
	return r
}

func TestTheProcessMeansAllThreadsButThoseOfPools(t *testing.T) {
	r := inChild(t, "main")
	for done, change := range map[string]func(*view){
		"below_normal": func(v *view) { v.Nice, v.Cores = v.Nice+5, "0" },
		"idle":         func(v *view) { v.Policy, v.Nice = unix.SCHED_IDLE, v.Nice+5 },
	} {
		want := r.Before
		change(&want)
		if done == "idle" { // of the nice value of such threads nobody asks
			for i := range r.Views[done] {
				r.Views[done][i].Nice = want.Nice
			}
		}
		if all := slices.Compact(r.Views[done]); len(all) != 1 || all[0] != want {
			t.Errorf("%s: %+v, want %+v", done, all, want)
		}
	}
	if r.Pooled["before"] != r.Before {
		t.Errorf("a thread of a pool runs as %+v, the process was started as %+v", r.Pooled["before"], r.Before)
	}
	if v := r.Pooled["after"]; v.Cores != r.Before.Cores {
		t.Errorf("a thread of a pool that is made later is bound to the cores %s of the others", v.Cores)
	}
	if v := r.Views["normal again"]; len(v) < 10 || v[0].Policy != unix.SCHED_IDLE {
		t.Errorf("a priority was raised: %+v", v)
	}
	if want := []string{
		"checks: priority normal is not permitted: operation not permitted; grant CAP_SYS_NICE, or LimitNICE= to the service",
		"main: priority normal is not permitted: operation not permitted; grant CAP_SYS_NICE, or LimitNICE= to the service",
	}; !reflect.DeepEqual(r.Told, want) {
		t.Errorf("told %q, want %q", r.Told, want)
	}
}

func TestWhatIsNotPermittedIsToldOnceAndWorkGoesOn(t *testing.T) {
	r := inChild(t, "raise")
	if r.Pooled["first"] != r.Before || r.Pooled["second"] != r.Before {
		t.Errorf("tasks ran as %+v", r.Pooled)
	}
	if len(r.Told) != 1 || !strings.Contains(r.Told[0], "checks: priority high is not permitted") || !strings.Contains(r.Told[0], "none of the cores [4095]") {
		t.Errorf("told %q", r.Told)
	}
}
