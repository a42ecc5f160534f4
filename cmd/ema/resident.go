package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"ema/client"
	"ema/internal/config"
	"ema/internal/host"
	"ema/internal/model"
	"ema/internal/tier"
)

// cacheSettings are the keys about models in memory.
func cacheSettings(c config.Config) tier.CacheSettings {
	kept, mapping := c.CacheOptimization.ModelCache, c.MemoryManagement.MemoryMapping
	return tier.CacheSettings{
		Enabled: kept.Enabled, Max: kept.MaxSizeGB.Bytes(), Cap: c.MemoryManagement.ModelCacheSizeGB.Bytes(),
		Preload: kept.PreloadFrequentlyUsed, Headers: kept.CacheMetadataOnly, Lock: kept.LockInMemory,
		Map: mapping.UseMmapForLargeFiles && mapping.MmapPopulate, MapFrom: mapping.MmapThresholdMB.Bytes(),
	}
}

// newCache makes the cache of models in memory. It reads ahead at idle I/O priority.
func (d *daemon) newCache(c config.Config) *tier.Cache {
	return tier.NewCache(tier.CacheNeeds{
		Files: d.contents, Memory: d.host.Memory, Pages: ownPages{host.PageCache{}, d.line.own},
		Idle: func(ctx context.Context, do func(context.Context) error) error {
			return d.pools.background.DoAt(ctx, host.IOLow, do)
		},
		Note: func(err error) { d.log.Warn("models in memory", "error", err.Error()) },
	}, cacheSettings(c))
}

// contents are the files of a model's complete contents.
func (d *daemon) contents(id model.ID) ([]string, error) {
	if _, err := d.line.Store.Model(id); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(d.line.Store.BlobPaths(id), func(path string) bool { return strings.HasSuffix(path, ".incomplete") }), nil
}

// keepModels has those models read into memory that were used often before the daemon was started, and then those that are
// used, until ctx ends.
func (d *daemon) keepModels(ctx context.Context) error {
	if err := d.rememberModels(ctx); err != nil && ctx.Err() == nil {
		d.log.Warn("models in memory", "error", err.Error())
	}
	if err := d.cache.Run(ctx); ctx.Err() == nil {
		return err
	}
	return nil
}

// rememberModels tells the cache of models that are used often, the one used last at the end.
func (d *daemon) rememberModels(ctx context.Context) error {
	c := d.settingsNow()
	if kept := c.CacheOptimization.ModelCache; !kept.Enabled || !kept.PreloadFrequentlyUsed {
		return nil
	}
	models, err := d.line.Store.Models(ctx)
	if err != nil {
		return err
	}
	hot := ruleOf(c.StorageTiers.Hot)
	since := time.Now().Add(-hot.Window)
	var often []model.ID
	for _, k := range models {
		if d.habits.uses.Count(k.ID, since) >= max(1, hot.Uses) {
			often = append(often, k.ID)
		}
	}
	slices.SortFunc(often, func(a, b model.ID) int { return d.habits.uses.Last(a).Compare(d.habits.uses.Last(b)) })
	for _, id := range often {
		if err := d.cache.Remember(id, d.habits.uses.Count(id, since)); err != nil {
			d.log.Warn("models in memory", "model", id.Public(), "error", err.Error())
		}
	}
	return nil
}

// inMemory is how the cache of models stands, measured now; nil when it is switched off.
func (d *daemon) inMemory(ctx context.Context) *client.ModelCacheResources {
	if !d.settingsNow().CacheOptimization.ModelCache.Enabled {
		return nil
	}
	if _, err := d.cache.Look(ctx); err != nil && ctx.Err() == nil {
		d.log.Warn("models in memory", "error", err.Error())
	}
	s := d.cache.Stats()
	mb := func(n model.Bytes) float64 { return float64(n) / float64(model.MiB) }
	r := &client.ModelCacheResources{
		LimitMB: mb(s.Limit), Models: s.Models, KeptMB: mb(s.Bytes), ResidentMB: mb(s.Resident), LockedMB: mb(s.Locked), Uses: s.Uses,
	}
	if s.Uses > 0 {
		r.HitRate = new(s.HitRate())
	}
	return r
}
