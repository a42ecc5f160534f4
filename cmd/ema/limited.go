package main

import (
	"context"
	"sync"
	"time"

	"ema/internal/host"
	"ema/internal/model"
	"ema/internal/pipeline"
	"ema/internal/throttle"
)

// limited is the bandwidth of a pull that is done in this process: what bandwidth_management says, as the time passes
// and the machine is busy or not, and no more than own per second; 0 is no limit of its own. stop ends what keeps it.
func (l *line) limited(ctx context.Context, own model.Bytes, p *pipeline.Progress) (share *throttle.Share, stop func(), err error) {
	set := l.settings.BandwidthManagement
	plan, err := schedule(set)
	if err != nil {
		return nil, nil, err
	}
	limiter := throttle.New()
	keeper := throttle.NewKeeper(limiter, func(model.Bytes, string) {})
	keeper.Configure(plan, adapt(set.AdaptiveLimiting))
	share = limiter.Share(1, smaller(own, set.PerDownloadLimitMbps.PerSecond()))
	machine := host.New("", l.Parallel)
	ctx, cancel := context.WithCancel(ctx)
	var kept sync.WaitGroup
	kept.Go(func() {
		received, at := p.Received.Load(), time.Now()
		_ = keeper.Run(ctx, func() throttle.Facts { //nolint:errcheck // it ends with ctx, and says so
			f := l.facts(machine)
			before, since := received, time.Since(at)
			received, at = p.Received.Load(), time.Now()
			f.Rate = model.Bytes(float64(received-before) / max(since.Seconds(), 0.001))
			return f
		})
	})
	return share, func() {
		cancel()
		kept.Wait()
		share.Close()
	}, nil
}

// facts are what adaptive limiting decides by.
func (l *line) facts(machine *host.Host) throttle.Facts {
	var f throttle.Facts
	if p, err := machine.Pressure(); err == nil {
		f.Load, _ = p.Worst()
	} else {
		l.log.Debug("pressure of this machine", "error", err.Error())
	}
	f.RTT, f.MinRTT = l.sources.RoundTrip()
	return f
}
