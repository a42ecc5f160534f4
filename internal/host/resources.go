package host

import (
	"context"
	"os"
	"sync"
	"time"

	"github.com/shirou/gopsutil/v4/cpu"
	"github.com/shirou/gopsutil/v4/disk"
	"github.com/shirou/gopsutil/v4/load"
	"github.com/shirou/gopsutil/v4/mem"
	"github.com/shirou/gopsutil/v4/net"
	"github.com/shirou/gopsutil/v4/process"
)

// A Meter measures what this process and this machine do between two looks. It is safe for concurrent use; looks at the
// same time share one.
type Meter struct {
	mu   sync.Mutex
	at   time.Time
	used float64 // CPU seconds of this process
	busy float64 // CPU seconds of the machine that were not idle
	all  float64 // and all of them
	sent uint64  // bytes over the network, both ways, loopback left out
	last Usage
}

// A Usage is one look. A figure that cannot be read is negative.
type Usage struct {
	ProcessCPU float64 // percent of one processor, since the last look
	MachineCPU float64 // percent of all processors, since the last look
	Network    float64 // bytes per second, both ways, without loopback, since the last look
	Resident   float64 // bytes of this process
	Threads    int
	OpenFiles  int
	Load1      float64
	Memory     float64 // bytes of this machine
	Available  float64 // of these
}

// leastLook is how long a look counts: shorter ones say nothing about rates.
const leastLook = 100 * time.Millisecond

// Look measures since the last look, or for 0.1 s where there was none. It returns ctx's error when ctx ends meanwhile.
func (m *Meter) Look(ctx context.Context) (Usage, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.at.IsZero() {
		m.measure(ctx)
		timer := time.NewTimer(leastLook)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			m.at = time.Time{}
			return Usage{}, ctx.Err()
		}
	} else if time.Since(m.at) < leastLook {
		return m.last, nil
	}
	m.last = m.measure(ctx)
	return m.last, ctx.Err()
}

// measure reads all counters, and what they have grown by.
func (m *Meter) measure(ctx context.Context) Usage {
	u := Usage{ProcessCPU: -1, MachineCPU: -1, Network: -1, Resident: -1, Threads: -1, OpenFiles: -1, Load1: -1, Memory: -1, Available: -1}
	now := time.Now()
	took := now.Sub(m.at).Seconds()
	m.at = now
	if p, err := process.NewProcessWithContext(ctx, int32(os.Getpid())); err == nil {
		if t, err := p.TimesWithContext(ctx); err == nil {
			used := t.User + t.System
			u.ProcessCPU, m.used = max(0, used-m.used)/took*100, used
		}
		if i, err := p.MemoryInfoWithContext(ctx); err == nil {
			u.Resident = float64(i.RSS)
		}
		if n, err := p.NumThreadsWithContext(ctx); err == nil {
			u.Threads = int(n)
		}
		if n, err := p.NumFDsWithContext(ctx); err == nil {
			u.OpenFiles = int(n)
		}
	}
	if t, err := cpu.TimesWithContext(ctx, false); err == nil && len(t) == 1 {
		all := t[0].User + t[0].System + t[0].Nice + t[0].Iowait + t[0].Irq + t[0].Softirq + t[0].Steal + t[0].Idle
		busy := all - t[0].Idle - t[0].Iowait
		if all > m.all {
			u.MachineCPU = min(100, max(0, busy-m.busy)/(all-m.all)*100)
		}
		m.busy, m.all = busy, all
	}
	if cards, err := net.IOCountersWithContext(ctx, true); err == nil {
		var sent uint64
		for _, c := range cards {
			if c.Name != "lo" {
				sent += c.BytesSent + c.BytesRecv
			}
		}
		if sent >= m.sent {
			u.Network = float64(sent-m.sent) / took
		}
		m.sent = sent
	}
	if l, err := load.AvgWithContext(ctx); err == nil {
		u.Load1 = l.Load1
	}
	if v, err := mem.VirtualMemoryWithContext(ctx); err == nil {
		u.Memory, u.Available = float64(v.Total), float64(v.Available)
	}
	return u
}

// Processors is for how many seconds all processors of the machine were busy since it was started, added up, and the seconds that there
// were.
func Processors(ctx context.Context) (busy, all float64, err error) {
	t, err := cpu.TimesWithContext(ctx, false)
	if err != nil {
		return 0, 0, err
	}
	for _, c := range t {
		sum := c.User + c.System + c.Nice + c.Iowait + c.Irq + c.Softirq + c.Steal + c.Idle
		busy, all = busy+sum-c.Idle-c.Iowait, all+sum
	}
	return busy, all, nil
}

// Volume is the size of the file system on which path lies, and what this user may still fill of it, in bytes.
func Volume(ctx context.Context, path string) (total, free uint64, err error) {
	u, err := disk.UsageWithContext(ctx, path)
	if err != nil {
		return 0, 0, err
	}
	return u.Total, u.Free, nil
}
