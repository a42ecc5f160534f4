package config

import (
	"reflect"
	"slices"
	"strings"
)

// An alias is another name for a key: the names that profiles use for what has a section of its own.
type alias struct {
	name string
	keys []string // what it sets; its own value must be right for the first
	// What true and false stand for where the alias is a switch and the keys are none; with an empty no, false sets
	// nothing.
	yes, no string
	note    string // for the documentation
}

// aliases lists all of them. Of two that set the same key the first wins.
func aliases() []alias {
	one := func(name, key string) alias { return alias{name: name, keys: []string{key}} }
	return []alias{
		one("downloads.chunk_size_mb", "chunk_optimization.default_chunk_size_mb"),
		one("downloads.connection_pool_size", "connection_settings.connection_pool_size"),
		one("downloads.keep_alive_enabled", "connection_settings.keep_alive_enabled"),
		one("downloads.bandwidth_limit_mbps", "bandwidth_management.global_limit_mbps"),
		one("settings.downloads.max_concurrent_downloads", "downloads.max_concurrent_downloads"),
		one("settings.downloads.max_concurrent_per_model", "downloads.max_concurrent_per_model"),
		one("settings.downloads.queue_size", "downloads.queue_size"),
		one("settings.downloads.chunk_size_mb", "chunk_optimization.default_chunk_size_mb"),
		one("settings.downloads.connection_pool_size", "connection_settings.connection_pool_size"),
		one("settings.downloads.keep_alive_enabled", "connection_settings.keep_alive_enabled"),
		one("settings.downloads.bandwidth_limit_mbps", "bandwidth_management.global_limit_mbps"),
		one("settings.storage.use_ssd_for_hot_tier", "storage_tiers.hot.criteria.performance_priority"),
		{name: "settings.storage.nvme_storage", keys: []string{"storage_tiers.hot.io_priority"}, yes: "high", no: "normal"},
		one("settings.storage.cache_size_gb", "cache_optimization.model_cache.max_size_gb"),
		{name: "settings.storage.async_writes", keys: []string{"store.async_writes"}, note: "what `store.durability` promises holds either way"},
		one("settings.storage.memory_mapped_files", "memory_management.memory_mapping.use_mmap_for_large_files"),
		{name: "settings.storage.preload_metadata", keys: []string{"cache_optimization.metadata_cache.persistent_cache"}, note: "answers kept on disk are there from the start"},
		one("settings.storage.aggressive_cleanup", "cleanup.auto"),
		{name: "settings.storage.compress_cache", keys: []string{"cache_optimization.metadata_cache.compress"}, note: "answers of the hub only: weights do not compress, and other tools read them"},
		{name: "settings.storage.minimal_metadata", keys: []string{"cache_optimization.metadata_cache.max_entries"}, yes: "1000"},
		one("settings.system.worker_processes", "cpu_optimization.worker_processes"),
		one("settings.system.io_threads", "cpu_optimization.io_threads"),
		one("settings.system.memory_allocation_gb", "memory_management.heap_size_gb"),
		one("settings.system.cpu_affinity", "cpu_optimization.cpu_affinity.enabled"),
		{
			name: "settings.system.high_priority_processes",
			keys: []string{"cpu_optimization.process_priority.main_process", "cpu_optimization.process_priority.download_processes"},
			yes:  "high", no: "normal",
		},
		{name: "settings.system.disable_swap", keys: []string{"cache_optimization.model_cache.lock_in_memory"}, note: "the swap of the machine is left alone; the pages of cached models are locked"},
		one("settings.system.gc_aggressive", "memory_management.gc_optimization.aggressive_gc_on_low_memory"),
		one("settings.api.response_caching", "api.response_caching"),
		one("settings.api.cache_ttl_seconds", "api.cache_ttl_seconds"),
		one("settings.api.preload_frequently_used", "cache_optimization.model_cache.preload_frequently_used"),
	}
}

// isSwitch reports whether the alias takes true or false where its keys take something else.
func (a alias) isSwitch() bool { return a.yes != "" }

// rules is the key whose rules hold for the alias's own value.
func (a alias) rules(root *key) *key {
	if a.isSwitch() {
		return &key{name: last(a.name), path: a.name, typ: reflect.TypeFor[bool]()}
	}
	return root.find(a.keys[0])
}

func aliasNames() []string {
	var names []string
	for _, a := range aliases() {
		names = append(names, a.name)
	}
	return names
}

// aliasNamed is the alias of that name, or nil.
func aliasNamed(name string) *alias {
	all := aliases()
	if i := slices.IndexFunc(all, func(a alias) bool { return a.name == name }); i >= 0 {
		return &all[i]
	}
	return nil
}

// takeAliases cuts all aliases out of a document, and returns what they mean, each as a document of its own.
func (d *decoder) takeAliases(doc *node) []*node {
	var meant []*node
	for _, a := range aliases() {
		n := doc.take(a.name)
		if n == nil {
			continue
		}
		if a.isSwitch() {
			if n.shape != boolean {
				d.wrong(n, a.rules(d.root), "wrong type")
				continue
			}
			value := a.yes
			if n.text == "false" {
				value = a.no
			}
			if value == "" {
				continue
			}
			for _, path := range a.keys {
				v := d.root.find(path).read(value)
				v.key, v.where = n.key, n.where+" ("+a.name+")"
				meant = append(meant, nest(path, v))
			}
			continue
		}
		n.where += " (" + a.name + ")"
		meant = append(meant, nest(a.keys[0], n))
	}
	d.leftover(doc)
	return meant
}

// leftover reports what remains below settings: names that are no aliases.
func (d *decoder) leftover(doc *node) {
	settings := doc.child("settings")
	if settings == nil {
		return
	}
	doc.fields = slices.DeleteFunc(doc.fields, func(f *node) bool { return f == settings })
	var names []string
	for _, name := range aliasNames() {
		if strings.HasPrefix(name, "settings.") {
			names = append(names, name)
		}
	}
	settings.leaves(func(n *node) {
		e := &Error{Key: n.key, Value: n.literal(), Where: n.where, Problem: "unknown key", Nearest: Nearest(n.key, names)}
		section := n.key[:max(strings.LastIndexByte(n.key, '.'), 0)]
		var siblings []string
		for _, name := range names {
			if rest, ok := strings.CutPrefix(name, section+"."); ok {
				siblings = append(siblings, rest)
			}
		}
		e.Want = "one of downloads, storage, system, api"
		if len(siblings) > 0 && section != "settings" {
			e.Want = "one of " + strings.Join(siblings, ", ")
		}
		d.errs = append(d.errs, e)
	})
}

// take cuts the node at a path out of n, or returns nil.
func (n *node) take(path string) *node {
	name, rest, deeper := strings.Cut(path, ".")
	found := n.child(name)
	if found == nil || deeper && found.shape != table {
		return nil
	}
	if deeper {
		return found.take(rest)
	}
	n.fields = slices.DeleteFunc(n.fields, func(f *node) bool { return f == found })
	return found
}

// leaves visits what is not an (empty) section below n, or n itself.
func (n *node) leaves(visit func(*node)) {
	if n.shape == null || n.shape == table {
		for _, f := range n.fields {
			f.leaves(visit)
		}
		return
	}
	visit(n)
}
