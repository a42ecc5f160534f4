package main

import (
	"context"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ema/client"
	"ema/internal/config"
	"ema/internal/demohub"
	"ema/internal/host"
	"ema/internal/model"
)

func TestTheHeapIsBoundedByTheMachineOrByItsKey(t *testing.T) {
	c := config.Default().MemoryManagement
	all := float64(10 * model.GiB)
	if r := heapRuleOf(c, 10*model.GiB); math.Abs(float64(r.limit)-0.72*all) > 1 || r.every != 300*time.Second || !r.aggressive {
		t.Errorf("%+v", r)
	}
	c.HeapSizeGB, c.GCOptimization.Enabled = 1, false
	if r := heapRuleOf(c, 10*model.GiB); r.limit != int64(model.GiB) || r.every != 0 || r.aggressive {
		t.Errorf("%+v", r)
	}
	c.HeapSizeGB = 0
	if r := heapRuleOf(c, 0); r.limit != math.MaxInt64 {
		t.Errorf("without a known size: %+v", r)
	}
}

func TestMemoryIsTidiedWhileThereIsWorkAndNeverWhileThereIsNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		collected, released, available := 0, 0, 50*model.GiB
		figures := func() (int, int) {
			mu.Lock()
			defer mu.Unlock()
			return collected, released
		}
		j := newJanitor(func() (model.Bytes, model.Bytes, error) {
			mu.Lock()
			defer mu.Unlock()
			return 100 * model.GiB, available, nil
		})
		j.collect = func() { mu.Lock(); collected++; mu.Unlock() }
		j.release = func() { mu.Lock(); released++; mu.Unlock() }
		j.configure(heapRule{every: time.Minute, aggressive: true})
		h := &heap{collectAt: func(int) {}}
		ctx, cancel := context.WithCancel(t.Context())
		var run sync.WaitGroup
		run.Go(func() { _ = j.run(ctx, h) })
		later := func(d time.Duration) {
			time.Sleep(d)
			synctest.Wait()
		}
		later(24 * time.Hour)
		if c, r := figures(); c+r != 0 {
			t.Errorf("idle for a day: collected %d times, released %d times", c, r)
		}
		done := h.work()
		later(150 * time.Second)
		if c, r := figures(); c != 2 || r != 0 {
			t.Errorf("after 150 s of work: %d, %d", c, r)
		}
		mu.Lock()
		available = 9 * model.GiB
		mu.Unlock()
		later(time.Minute)
		if c, r := figures(); c != 2 || r != 1 {
			t.Errorf("when memory is short: %d, %d", c, r)
		}
		done()
		later(24 * time.Hour)
		if c, r := figures(); c != 2 || r != 2 {
			t.Errorf("once more at the end, and then never: %d, %d", c, r)
		}
		j.configure(heapRule{})
		done = h.work()
		later(time.Hour)
		done()
		later(time.Hour)
		if c, r := figures(); c != 2 || r != 2 {
			t.Errorf("switched off: %d, %d", c, r)
		}
		cancel()
		run.Wait()
	})
}

// threadsOf is what the system says of a process's threads: nice values, policies, and the cores that each may use.
func threadsOf(t *testing.T, pid int) (nice, policy map[string]int, cores map[string]int) {
	t.Helper()
	nice, policy, cores = map[string]int{}, map[string]int{}, map[string]int{}
	tasks, err := filepath.Glob(filepath.Join("/proc", strconv.Itoa(pid), "task", "*"))
	if err != nil || len(tasks) == 0 {
		t.Fatal(tasks, err)
	}
	for _, task := range tasks {
		stat, err := os.ReadFile(filepath.Join(task, "stat"))
		status, err2 := os.ReadFile(filepath.Join(task, "status"))
		if err != nil || err2 != nil {
			continue // it has ended
		}
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:])) // from the third on; see proc_pid_stat(5)
		nice[fields[16]]++
		policy[fields[38]]++
		_, list, _ := strings.Cut(string(status), "Cpus_allowed_list:")
		list, _, _ = strings.Cut(list, "\n")
		cores[strings.TrimSpace(list)]++
	}
	return nice, policy, cores
}

func TestThreadsRunAsTheSettingsSay(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	mine, err := host.Cores()
	if err != nil {
		t.Fatal(err)
	}
	core := strconv.Itoa(mine[0])
	_, environ := quickHub(t)
	environ = append(environ, "EMA_CPU_OPTIMIZATION__PROCESS_PRIORITY__MAIN_PROCESS=below_normal", "EMA_CPU_OPTIMIZATION__WORKER_PROCESSES=1",
		"EMA_CPU_OPTIMIZATION__WORKER_THREADS_PER_PROCESS=1", "EMA_CPU_OPTIMIZATION__CPU_AFFINITY__ENABLED=true", "EMA_CPU_OPTIMIZATION__CPU_AFFINITY__WORKER_CORES="+core,
		"EMA_MEMORY_MANAGEMENT__HEAP_SIZE_GB=1")
	c := &tidy{t: t, environ: environ}
	c.process = serving(ctx, t, environ)
	c.url = c.address(t) + client.Base
	c.ema("pull", "acme/slow", "--quiet")
	nice, policy, cores := threadsOf(t, c.Process.Pid)
	if len(nice) != 1 || nice["5"] == 0 || len(cores) != 1 || cores[core] == 0 || policy["0"] == 0 {
		t.Errorf("nice values %v, policies %v, cores %v; want 5, 0 and %s of all", nice, policy, cores, core)
	}
	var r client.Resources
	asks(t, http.DefaultClient, "GET", c.url+"/admin/resources", "", &r)
	if r.Limits.Workers != 1 || r.Limits.IOThreads != 8 || r.Limits.BackgroundThreads != 4 || r.Limits.HeapMB == nil || *r.Limits.HeapMB < 819 || *r.Limits.HeapMB > 820 {
		t.Errorf("limits %+v", r.Limits)
	}

	// What is verified is read and hashed on threads of their own, which take what nobody else wants.
	stop, verified := context.WithCancel(ctx)
	var verifying sync.WaitGroup
	verifying.Go(func() {
		for stop.Err() == nil {
			c.ema("verify", "--quiet")
		}
	})
	for idle := false; !idle && ctx.Err() == nil; {
		_, policy, _ := threadsOf(t, c.Process.Pid)
		idle = policy["5"] > 0 // SCHED_IDLE
	}
	verified()
	verifying.Wait()
	if ctx.Err() != nil {
		t.Error("no thread ran idly while models were verified")
	}
	c.ends(t)
}

func TestWhatIsDownloadedIsHashedAtItsOwnPriority(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	hub, environ := slowHub(t)
	c := &tidy{t: t, hub: hub, environ: append(environ, "EMA_CPU_OPTIMIZATION__PROCESS_PRIORITY__DOWNLOAD_PROCESSES=idle")}
	c.process = serving(ctx, t, c.environ)
	if _, policy, _ := threadsOf(t, c.Process.Pid); policy["5"] > 0 {
		t.Errorf("policies before: %v", policy)
	}
	c.ema("pull", "acme/slow", "--detach")
	for idle := false; !idle; {
		if ctx.Err() != nil {
			t.Fatal("no thread ran idly while a model was downloaded")
		}
		_, policy, _ := threadsOf(t, c.Process.Pid)
		idle = policy["5"] > 0 // SCHED_IDLE
	}
	hub.Set(demohub.Rate(0))
	c.ema("pull", "acme/slow", "--quiet")
	c.ema("verify", "acme/slow")
	c.ends(t)
}
