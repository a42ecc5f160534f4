package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"ema/internal/config"
	"ema/internal/fetch"
	"ema/internal/host"
	"ema/internal/model"
	"ema/internal/pipeline"
	"ema/internal/source"
	"ema/internal/store"
)

// A line is a pipeline with what it was built from. Everything is wired here, and nowhere else.
type line struct {
	*pipeline.Line
	settings *config.Effective
	sources  *reach
	reached  source.Settings                                          // that sources were made of, but for Tell
	answers  *source.Answers                                          // of the hub, for sources before and after a change
	hashing  func(context.Context, func(context.Context) error) error // on which threads the daemon hashes what it downloads; nil in other commands
	own      *own                                                     // what the daemon opens itself; nil in other commands
	waits    atomic.Pointer[func(host string, err error, wait time.Duration)]
	turning  sync.Mutex // held while what is kept of updates is read or changes
	getenv   func(string) string
	log      *slog.Logger
	closeLog func() error
}

// line builds the pipeline that the effective settings and the environment describe. It uses no
// network, and no disk besides reading the token's file and opening the log. Close it.
func (a *app) line(command string, offline bool, waiting func(store.Owner)) (*line, error) {
	if a.within != nil {
		return a.within, nil
	}
	// Little of the heap lives long, and memory that is new to the process costs more than collecting: pulling 1.1 GiB in
	// 3,002 files peaks at 56 MiB instead of 75, for no more CPU time.
	a.collectAt(25)
	e, err := a.settings()
	if err != nil {
		return nil, err
	}
	stored, err := storeSettings(e.Config)
	if err != nil {
		return nil, err
	}
	reached, err := sourceSettings(e.Config, a.getenv, os.ReadFile)
	if err != nil {
		return nil, err
	}
	facts, err := a.machine()
	if err != nil {
		return nil, err
	}
	reached.Offline = offline || source.OfflineFromEnv(a.getenv)
	reached.Steadfast = command == daemonCommand
	l := &line{settings: e, getenv: a.getenv}
	if command == daemonCommand {
		l.own = newOwn()
		stored.Disk = ownDisk{own: l.own}
	}
	kept := store.New(stored)
	l.answers = source.NewAnswers(answerSettings(e.Config, kept.StateDir()), func(err error) { l.log.Info("answers", "error", err.Error()) })
	reached.Answers = l.answers
	l.reached = reached
	reached.Tell = l.hostWaits
	sources, err := newReach(reached)
	if err != nil {
		return nil, err
	}
	minFree, err := minFree(e.Cleanup, kept.Path())
	if err != nil {
		return nil, errors.Join(err, sources.Close())
	}
	log, closeLog, err := a.logger(e.Log, slog.LevelWarn)
	if err != nil {
		return nil, errors.Join(err, sources.Close())
	}
	if err := host.ForgetProgram(); err != nil {
		log.Debug("the pages of the program are kept in memory", "err", err)
	}
	fetching := fetchSettings(e.Config, facts)
	fetching.Log = log
	l.Line = &pipeline.Line{
		Store: kept, Source: sources, Memory: sources, Fetcher: fetch.New(fetching, sources), Retry: fetching.Retry,
		MinFree: minFree, MostHot: largest(e.StorageTiers, model.Hot), Offline: reached.Offline, Command: command, Waiting: waiting, Parallel: facts.CPUs,
		Hub: model.Redact(e.Sources.HuggingFace.Endpoint),
	}
	l.sources, l.log, l.closeLog = sources, log, closeLog
	return l, nil
}

// hostWaits is told when requests to a host begin to wait: it asked for that, or cannot be reached.
func (l *line) hostWaits(host string, err error, wait time.Duration) {
	l.log.Info("host", "host", host, "error", err.Error(), "wait", wait)
	if tell := l.waits.Load(); tell != nil {
		(*tell)(host, err, wait)
	}
}

// configure has downloads that run go on as e says. What e says about hubs and connections holds for new connections;
// what is wrong with it is returned, and then everything stays as it was.
func (l *line) configure(e *config.Effective, facts config.Facts) error {
	reached, err := sourceSettings(e.Config, l.getenv, os.ReadFile)
	if err != nil {
		return err
	}
	leave, err := minFree(e.Cleanup, l.Store.Path())
	if err != nil {
		return err
	}
	reached.Offline, reached.Steadfast, reached.Answers = l.Offline, l.Command == daemonCommand, l.answers
	if !reflect.DeepEqual(reached, l.reached) {
		told := reached
		told.Tell = l.hostWaits
		if err := l.sources.change(told); err != nil {
			return err
		}
		l.reached = reached
	}
	l.answers.Configure(answerSettings(e.Config, l.Store.StateDir()))
	fetching := fetchSettings(e.Config, facts)
	fetching.Log, fetching.Run = l.log, l.hashing
	l.Fetcher.Configure(fetching)
	l.Configure(fetching.Retry, leave, largest(e.StorageTiers, model.Hot))
	l.Quarantine.Store(e.Health.Quarantine)
	return nil
}

// Close gives up idle connections, and closes the log. The daemon's line outlives the commands that run within it.
func (l *line) Close() error {
	if l.Writer != nil {
		return nil
	}
	return l.end()
}

// end closes a line for good.
func (l *line) end() error { return errors.Join(l.sources.Close(), l.closeLog()) }

// own makes this command the store's writer; within the daemon it works as that one. done gives it back.
func (a *app) own(ctx context.Context, s *store.Store, command string) (w *store.Writer, done func() error, err error) {
	if a.within != nil {
		return a.within.Writer, func() error { return nil }, nil
	}
	w, err = s.Own(ctx, command, func(o store.Owner) { fmt.Fprintln(a.stderr, "ema: waiting for "+o.String()) })
	if err != nil {
		return nil, nil, err
	}
	return w, w.Close, nil
}

// done logs how a command on one model went. A failure is worth a warning in a log file only: on stderr its sentence
// stands already.
func (l *line) done(ctx context.Context, what string, id model.ID, begun time.Time, err error, more ...any) {
	level, args := slog.LevelInfo, append([]any{"model", id.Public(), "seconds", time.Since(begun).Seconds()}, more...)
	if err != nil {
		args = append(args, "class", model.ClassOf(err).String(), "error", err.Error())
		if l.settings.Log.File != "" {
			level = slog.LevelWarn
		}
	}
	l.log.Log(ctx, level, what, args...)
}

// store is the store that the settings name, for commands that need nothing else.
func (a *app) store() (*store.Store, error) {
	if a.within != nil {
		return a.within.Store, nil
	}
	a.collectAt(400) // a listing is over before its memory is worth collecting
	e, err := a.settings()
	if err != nil {
		return nil, err
	}
	s, err := storeSettings(e.Config)
	if err != nil {
		return nil, err
	}
	return store.New(s), nil
}

// storeSettings are the keys of the section store.
func storeSettings(c config.Config) (store.Settings, error) {
	if c.Store.Path == "" {
		return store.Settings{}, &model.Error{
			Op: "open store", Class: model.Usage, Err: errors.New("no folder is named, and HOME is not set"),
			Hint: "name one with --store or HF_HUB_CACHE",
		}
	}
	if info, err := os.Stat(c.Store.Path); err == nil && !info.IsDir() {
		return store.Settings{}, &model.Error{
			Op: "open store", Class: model.Usage, File: c.Store.Path, Err: errors.New("it is a file, and models need a folder"),
			Hint: "name another with --store",
		}
	}
	return store.Settings{
		Path: c.Store.Path, StateDir: c.Store.StateDir, Process: c.Store.Durability == "process", Colder: colder(c.StorageTiers),
		WriteSize: c.Store.WriteSizeKB.Bytes(), Cache: cachePolicy(c.Store.PageCache),
	}, nil
}

// sourceSettings are the keys about hubs and connections, with the token and the authorities that the environment names.
func sourceSettings(c config.Config, getenv func(string) string, readFile func(string) ([]byte, error)) (source.Settings, error) {
	token, err := token(c.Sources.HuggingFace, getenv, readFile)
	if err != nil {
		return source.Settings{}, &model.Error{Op: "read the hub's token", Class: model.Usage, Err: err}
	}
	net, dns := c.ConnectionSettings, c.NetworkOptimization
	names := source.DNS{Cache: dns.DNSCacheEnabled && dns.DNSCacheTTLSeconds > 0, TTL: dns.DNSCacheTTLSeconds.Duration(), PreferIPv4: dns.PreferIPv4}
	if !dns.UseSystemResolver {
		names.Servers = dns.CustomDNSServers
	}
	return source.Settings{
		Endpoint: c.Sources.HuggingFace.Endpoint, Token: token, UserAgent: "ema/" + currentBuild().Version,
		AllowedHosts: c.Sources.Allowed, CertFiles: source.CertFilesFromEnv(getenv),

		ConnectTimeout:  net.ConnectionTimeoutSeconds.Duration(),
		ReadTimeout:     net.ReadTimeoutSeconds.Duration(),
		MaxConnsPerHost: connections(net), MaxConns: net.ConnectionPoolSize, MaxIdleConns: net.ConnectionPoolSize,
		NoKeepAlive: !net.KeepAliveEnabled || !dns.ConnectionReuse, NoPersistence: !dns.PersistentConnections,
		IdleTimeout:   net.KeepAliveTimeout.Duration(),
		NoCompression: !net.CompressionEnabled, NoHTTP2: !net.HTTP2Enabled, HTTP2Bulk: net.HTTP2Bulk, DNS: names,
		Nagle: !net.TCPNoDelay, SocketBuffer: int(net.SocketBufferSize),
	}, nil
}

// answerSettings are the keys about what is kept of the hub's answers, for the store with that state folder.
func answerSettings(c config.Config, state string) source.AnswerSettings {
	kept := c.CacheOptimization.MetadataCache
	s := source.AnswerSettings{
		Entries: kept.MaxEntries, Memory: c.MemoryManagement.MetadataCacheSizeMB.Bytes(), TTL: kept.TTLSeconds.Duration(), Compress: kept.Compress,
	}
	if kept.PersistentCache {
		s.Folder = filepath.Join(state, "answers")
	}
	if !kept.Enabled {
		s.Entries = 0
	}
	return s
}

// token is what the named file holds, else what the user's environment says.
func token(h config.HuggingFace, getenv func(string) string, readFile func(string) ([]byte, error)) (string, error) {
	if h.TokenFile == "" {
		return source.TokenFromEnv(getenv, readFile)
	}
	b, err := readFile(h.TokenFile)
	if err != nil {
		return "", fmt.Errorf("sources.huggingface.token_file: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// connections is how many connections one download may have: those to one host, as far as the pool reaches.
func connections(c config.ConnectionSettings) int {
	return min(c.MaxConnectionsPerHost, c.ConnectionPoolSize)
}

// fetchSettings are the keys about how a download runs.
func fetchSettings(c config.Config, facts config.Facts) fetch.Settings {
	chunk, speed := c.ChunkOptimization, c.ChunkOptimization.NetworkBasedChunking
	return fetch.Settings{
		Connections: connections(c.ConnectionSettings),
		Total:       c.ConnectionSettings.ConnectionPoolSize,
		ReadTimeout: c.ConnectionSettings.ReadTimeoutSeconds.Duration(),
		LargeFiles:  c.Downloads.PerModel(facts),
		Buffers:     c.MemoryManagement.DownloadBufferSizeMB.Bytes(),
		Chunk: fetch.ChunkRule{
			Fixed: !chunk.AdaptiveChunking.Enabled, Default: chunk.DefaultChunkSizeMB.Bytes(),
			Small: chunk.AdaptiveChunking.SmallFileChunkMB.Bytes(), SmallThreshold: said(chunk.AdaptiveChunking.SmallFileThresholdMB.Bytes()),
			Large: chunk.AdaptiveChunking.LargeFileChunkMB.Bytes(), LargeThreshold: said(chunk.AdaptiveChunking.LargeFileThresholdMB.Bytes()),
			Network: fetch.NetworkRule{
				Enabled: speed.Enabled, Slow: said(speed.SlowNetworkThresholdMbps.PerSecond()), Fast: said(speed.FastNetworkThresholdMbps.PerSecond()),
				SlowChunk: speed.SlowNetworkChunkMB.Bytes(), FastChunk: speed.FastNetworkChunkMB.Bytes(),
			},
		},
		Retry: retry(c.RetryOptimization),
	}
}

// retry is the section retry_optimization.
func retry(r config.RetryOptimization) fetch.Retry {
	most := r.MaxRetries
	if most == 0 {
		most = -1 // none; 0 would be the default
	}
	return fetch.Retry{
		Max: most, Factor: r.BackoffFactor, NoJitter: !r.JitterEnabled,
		Base:        said(r.BaseDelaySeconds.Duration()),
		MaxDelay:    said(r.MaxDelaySeconds.Duration()),
		Timeout:     said(r.ErrorSpecificDelays.NetworkTimeout.Duration()),
		ServerError: said(r.ErrorSpecificDelays.ServerError.Duration()),
		RateLimit:   said(r.ErrorSpecificDelays.RateLimit.Duration()),
		Adaptive: fetch.Adaptive{
			Enabled: r.AdaptiveRetries.Enabled, Threshold: r.AdaptiveRetries.SuccessRateThreshold,
			Increase: r.AdaptiveRetries.IncreaseRetriesOnLowSuccess, Decrease: r.AdaptiveRetries.DecreaseRetriesOnHighSuccess,
		},
	}
}

// said keeps a zero that somebody wrote from being taken for "use the default": the next smallest value is as good.
func said[T time.Duration | model.Bytes](v T) T { return max(v, 1) }

// minFree is the space that downloads leave free on the volume of dir: cleanup.min_free_gb, or the smaller of 5 GiB and
// 5 % of the volume.
func minFree(c config.Cleanup, dir string) (model.Bytes, error) {
	if c.MinFreeGB > 0 {
		return c.MinFreeGB.Bytes(), nil
	}
	size, err := volumeSize(dir)
	if err != nil {
		return 0, &model.Error{Op: "measure the disk", Class: model.DiskError, File: dir, Err: err}
	}
	return min(5*model.GiB, size/20), nil
}

// volumeSize is the size of the volume where dir lies or would lie.
func volumeSize(dir string) (model.Bytes, error) {
	for {
		var st unix.Statfs_t
		err := unix.Statfs(dir, &st)
		switch {
		case err == nil:
			return model.Bytes(st.Blocks) * model.Bytes(st.Frsize), nil
		case errors.Is(err, unix.EINTR):
		case !errors.Is(err, fs.ErrNotExist) || dir == filepath.Dir(dir):
			return 0, err
		default:
			dir = filepath.Dir(dir)
		}
	}
}

// cachePolicy is store.page_cache as the store knows it.
func cachePolicy(name string) store.Cache {
	switch name {
	case "keep":
		return store.CacheKeep
	case "drop":
		return store.CacheDrop
	}
	return store.CacheAuto
}

// collectAt sets how much the heap grows between collections, in percent, unless GOGC does.
func (a *app) collectAt(percent int) {
	if a.getenv("GOGC") == "" {
		debug.SetGCPercent(percent)
	}
}
