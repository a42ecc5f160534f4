package api

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"ema/internal/api/trust"
)

// The contract, as clients of the original system rely on it: NAME:TYPE, where types are s(tring), n(umber), b(oolean),
// a(rray), o(bject) and ? for null too. NAME{…} is an object, NAME[…] an array of objects with these fields, and *{…} an
// object of objects by id.
const (
	progressFields     = "model_id:s status:s progress_percent:n downloaded_mb:n total_mb:n speed_mbps:n eta_seconds:n? retry_count:n max_retries:n error_message:s can_pause:b can_resume:b can_cancel:b"
	statusFields       = "model_id:s is_available:b is_loaded:b size_mb:n availability_status:s download_progress:n? missing_files:a integrity_score:n? last_health_check:s? performance_score:n? corruption_detected:b usage_frequency:n? last_used:s? average_generation_time:n? can_pause_download:b can_resume_download:b estimated_download_time:n? current_version:s? latest_version:s? update_available:b?"
	problemFields      = "error{ code:s message:s details:o timestamp:s request_id:s }"
	healthFields       = "status:s message:s checked_at:s issues:a"
	wellFields         = "model_id:s overall_health:s health_score:n? integrity_score:n? performance_score:n? last_check:s? issues:a recommendations:a"
	usageFields        = "models{ *{ model_id:s total_uses:n uses_per_day:n average_generation_time:n? success_rate:n? last_30_days_usage[ date:s uses:n avg_time:n? ] peak_usage_hours:a } } summary{ total_generations:n total_models_used:n average_success_rate:n? most_used_model:s? least_used_model:s? }"
	benchmarkFields    = "benchmark_id:s state:s suites:a suite:s step:s progress_percent:n elapsed_seconds:n started_at:s ended_at:s? estimated_completion:s?"
	figureFields       = "downloads{ active_count:n? average_speed_mbps:n? success_rate:n? queue_length:n? } storage{ total_usage_gb:n? cache_hit_rate:n? io_throughput_mbps:n? } api{ requests_per_second:n? average_response_time_ms:n? error_rate:n? } system{ cpu_usage_percent:n? memory_usage_percent:n? network_usage_mbps:n? }"
	optimizationFields = "optimization_id:s type:s reason:s setting:s from:s to:s status:s status_reason:s metric:s before:n? after:n? improvement_percent:n? applied_at:s status_since:s undo:s?"
)

func TestTheContractHolds(t *testing.T) {
	s, _, _ := whole(t)
	srv := httptest.NewServer(trust.Local(s.Handler()))
	defer srv.Close()
	byRequest := map[string]*documented{}
	for _, op := range operations(t) {
		byRequest[op.method+" "+op.path] = op
	}
	tried := map[string]bool{}
	for _, c := range []struct {
		op, path, body string
		status         int
		fields         string
	}{
		{"POST /models/download/manage", "", `{"model_id":"acme/new","action":"start"}`, 200, "success:b message:s download_id:s new_status:s estimated_completion:s?"},
		{"POST /models/download/manage", "", `{"model_id":"acme/new","action":"start","max_retries":2,"priority":"low","bandwidth_limit_mbps":1.5,"revision":"main","include":["*"],"exclude":["x"]}`, 200, "success:b download_id:s"},
		{"POST /models/download/manage", "", `{"model_id":"acme/going","action":"pause"}`, 200, "success:b new_status:s"},
		{"POST /models/download/manage", "", `{"model_id":"acme/going","action":"resume"}`, 200, "success:b new_status:s"},
		{"POST /models/download/manage", "", `{"model_id":"acme/going","action":"prioritize","priority":"critical"}`, 200, "success:b"},
		{"POST /models/download/manage", "", `{"model_id":"acme/here","action":"repair"}`, 200, "success:b message:s"},
		{"POST /models/download/manage", "", `{"model_id":"acme/none","action":"repair"}`, 404, problemFields},
		{"POST /models/download/manage", "", `{"model_id":"acme/done","action":"pause"}`, 409, problemFields},
		{"POST /models/download/manage", "", `{"model_id":"acme/new","action":"cancel"}`, 200, "success:b new_status:s"},
		{"POST /models/download/manage", "", `{`, 400, problemFields},
		{"POST /models/download/manage", "", `{}`, 422, problemFields},
		{"GET /models/download/progress/{model_id}", "/models/download/progress/acme/going", "", 200, progressFields + " files_total:n files:a"},
		{"GET /models/download/progress/{model_id}", "/models/download/progress/acme%2Fgoing", "", 200, progressFields},
		{"GET /models/download/progress/{model_id}", "/models/download/progress/acme/unknown", "", 404, problemFields},
		{"GET /models/download/active", "", "", 200, "active_downloads[ model_id:s status:s progress_percent:n speed_mbps:n eta_seconds:n? ] total_active:n total_bandwidth_usage_mbps:n"},
		{"GET /models/download/history", "/models/download/history?page=1&limit=1&sort=created_at&order=asc", "", 200, "downloads[ " + progressFields + " ] page:n limit:n"},
		{"GET /models/status/detailed", "", "", 200, "models{ *{ " + statusFields + " } } summary{ total_models:n available_models:n downloading_models:n corrupted_models:n total_storage_gb:n }"},
		{"GET /models/status/detailed/{model_id}", "/models/status/detailed/acme/here", "", 200, statusFields},
		{"GET /models/status/detailed/{model_id}", "/models/status/detailed/acme%2Fhere", "", 200, statusFields},
		{"GET /models/status/detailed/{model_id}", "/models/status/detailed/acme/unknown", "", 404, problemFields},
		{"GET /models/status/detailed/{model_id}", "/models/status/detailed/a/b/c", "", 422, problemFields},
		{"GET /models/storage", "", "", 200, "storage_summary{ total_capacity_gb:n used_space_gb:n available_space_gb:n usage_percent:n models_count:n } models_storage[ model_id:s size_gb:n last_accessed:s? usage_frequency:n? storage_tier:s pinned:b ] tiers[ tier:s path:s state:s total_capacity_gb:n used_space_gb:n available_space_gb:n ] moves:a cleanup_suggestions{ potential_savings_gb:n safe_to_remove_count:n candidates:a }"},
		{"POST /models/storage/move", "", `{"model_id":"acme/here","tier":"cold"}`, 200, "success:b message:s model_id:s from:s to:s state:s progress_percent:n moved_bytes:n total_bytes:n automatic:b"},
		{"POST /models/storage/move", "", `{"model_id":"acme/here","cancel":true}`, 200, "success:b message:s model_id:s state:s"},
		{"POST /models/storage/move", "", `{"model_id":"acme/none","tier":"cold"}`, 404, problemFields},
		{"POST /models/storage/move", "", `{"model_id":"acme/going","tier":"cold"}`, 409, problemFields},
		{"POST /models/storage/move", "", `{"model_id":"acme/here","tier":"warm"}`, 422, problemFields},
		{"POST /models/storage/move", "", `{"model_id":"acme/large","tier":"cold"}`, 507, problemFields},
		{"POST /models/storage/pin", "", `{"model_id":"acme/here","pinned":true}`, 200, "success:b message:s model_id:s pinned:b"},
		{"POST /models/storage/pin", "", `{"model_id":"acme/none","pinned":true}`, 404, problemFields},
		{"POST /models/storage/pin", "", `{"model_id":"acme/here"}`, 422, problemFields},
		{"POST /models/cleanup", "", `{"cleanup_type":"auto"}`, 200, "success:b cleanup_id:s models_removed:a space_freed_gb:n models_preserved:a summary{ total_processed:n removed:n preserved:n errors:n } items[ model_id:s action:s reason:s freed_bytes:n ]"},
		{"POST /models/cleanup", "", `{"cleanup_type":"manual","models_to_remove":["acme/here"],"dry_run":true}`, 200, "success:b cleanup_id:s"},
		{"POST /models/cleanup", "", `{"cleanup_type":"auto","min_unused_days":3.5,"preserve_frequently_used":false,"dry_run":true}`, 200, "success:b cleanup_id:s"},
		{"POST /models/cleanup", "", `{"cleanup_type":"all"}`, 422, problemFields},
		{"POST /models/usage", "", `{"model_id":"acme/here","operation":"generate","duration_ms":12.5,"success":true,"bytes":4096}`, 200, "success:b model_id:s timestamp:s"},
		{"POST /models/usage", "", `{"model_id":"acme/none"}`, 404, problemFields},
		{"POST /models/usage", "", `{}`, 422, problemFields},
		{"DELETE /models/{model_id}", "/models/acme/here", "", 200, "success:b message:s model_id:s space_freed_gb:n freed_bytes:n"},
		{"DELETE /models/{model_id}", "/models/acme%2Fhere", "", 200, "success:b"},
		{"DELETE /models/{model_id}", "/models/acme/unknown", "", 404, problemFields},
		{"GET /models/health", "", "", 200, "models{ *{ " + wellFields + " } } system_health{ overall_score:n? healthy_models:n degraded_models:n corrupted_models:n last_system_check:s? }"},
		{"GET /models/health/{model_id}", "/models/health/acme/here", "", 200, wellFields},
		{"GET /models/health/{model_id}", "/models/health/acme%2Fhere", "", 200, wellFields},
		{"GET /models/health/{model_id}", "/models/health/acme/unknown", "", 404, problemFields},
		{"POST /models/health/{model_id}/check", "/models/health/acme/here/check", `{"check_type":"full","force_check":true}`, 200, "success:b check_id:s estimated_completion:s?"},
		{"POST /models/health/{model_id}/check", "/models/health/acme/here/check", "", 200, "success:b check_id:s"},
		{"POST /models/health/{model_id}/check", "/models/health/acme/none/check", `{"check_type":"integrity"}`, 404, problemFields},
		{"POST /models/health/{model_id}/check", "/models/health/acme/here/check", `{"check_type":"some"}`, 422, problemFields},
		{"POST /models/health/{model_id}/repair", "/models/health/acme/here/repair", `{"repair_type":"auto"}`, 200, "success:b repair_id:s actions_taken:a estimated_completion:s?"},
		{"POST /models/health/{model_id}/repair", "/models/health/acme/here/repair", `{"repair_type":"redownload"}`, 200, "success:b repair_id:s"},
		{"POST /models/health/{model_id}/repair", "/models/health/acme/none/repair", `{"repair_type":"integrity_fix"}`, 404, problemFields},
		{"GET /models/analytics", "/models/analytics?period=week&timezone=Europe/Berlin", "", 200, usageFields},
		{"GET /models/analytics", "/models/analytics?start_date=2026-03-01&end_date=2026-03-29", "", 200, usageFields},
		{"GET /models/analytics", "/models/analytics?period=eon", "", 422, problemFields},
		{"GET /models/analytics", "/models/analytics?timezone=Nowhere", "", 422, problemFields},
		{"GET /models/analytics/{model_id}", "/models/analytics/acme/here?period=year", "", 200, usageFields},
		{"GET /models/analytics/cleanup", "/models/analytics/cleanup?storage_threshold_gb=10&min_unused_days=30", "", 200, "recommendations[ model_id:s reason:s last_used:s? size_mb:n usage_count:n confidence:n action:s ] potential_savings_gb:n current_usage_gb:n target_usage_gb:n"},
		{"GET /models/analytics/performance", "", "", 200, "performance_trends{ *{ current_score:n? trend:s last_7_days_avg:n? last_30_days_avg:n? performance_issues:a recommendations:a } } system_performance{ overall_score:n? download_success_rate:n? average_download_speed_mbps:n? health_check_success_rate:n? }"},
		{"GET /models/analytics/preload", "/models/analytics/preload?timezone=UTC", "", 200, "suggestions[ model_id:s hour:n expected_uses:n confidence:n size_mb:n storage_tier:s action:s reason:s ] timezone:s"},
		{"GET /models/analytics/export", "/models/analytics/export?period=day", "", 200, ""},
		{"GET /models/updates", "", "", 200, "updates[ model_id:s revision:s current_version:s latest_version:s? update_available:b? download_mb:n? checked_at:s? previous_versions:a ] policy:s"},
		{"POST /models/updates/check", "", `{"model_id":"acme/here"}`, 200, "updates:a policy:s"},
		{"POST /models/updates/check", "", `{}`, 200, "updates:a policy:s"},
		{"POST /models/updates/apply", "", `{"model_id":"acme/here"}`, 200, "success:b message:s model_id:s download_id:s"},
		{"POST /models/updates/apply", "", `{"model_id":"acme/none"}`, 404, problemFields},
		{"POST /models/updates/rollback", "", `{"model_id":"acme/here"}`, 200, "success:b message:s model_id:s revision:s from:s to:s"},
		{"POST /models/updates/rollback", "", `{"model_id":"acme/none"}`, 404, problemFields},
		{"POST /models/fallback/suggest", "", `{"model_id":"acme/away","max_suggestions":3}`, 200, "original_model:s original_status:s expected_wait_seconds:n? suggestions[ model_id:s score:n available:b availability_status:s size_mb:n reasons:a architectures:a ]"},
		{"POST /models/fallback/suggest", "", `{}`, 422, problemFields},
		{"POST /models/fallback/queue", "", `{"model_id":"acme/away","start_download":true}`, 200, "success:b message:s model_id:s queue_id:s waiting:b estimated_availability:s?"},
		{"POST /models/fallback/queue", "", `{"model_id":"acme/away","webhook_url":"file:///etc/passwd"}`, 422, problemFields},
		{"GET /models/fallback/queue", "", "", 200, "waiting:a"},
		{"DELETE /models/fallback/queue/{queue_id}", "/models/fallback/queue/W1", "", 200, "success:b queue_id:s"},
		{"DELETE /models/fallback/queue/{queue_id}", "/models/fallback/queue/none", "", 404, problemFields},
		{"GET /admin/performance/current", "", "", 200, figureFields + " unknown:o"},
		{"GET /admin/performance/dashboard", "", "", 200, figureFields},
		{"GET /admin/performance/trends", "", "", 200, "interval_seconds:n window:n trends{ *{ trend:s good:b? change_percent:n? median:n last:n samples:n last_sample:s } } recommendations[ type:s reason:s setting:s current:s advised:s command:s held_back:s ]"},
		{"GET /admin/performance/optimizations", "", "", 200, "auto_apply:b checked_at:s? optimizations[ " + optimizationFields + " ] recommendations:a"},
		{"POST /admin/performance/optimizations/{optimization_id}/undo", "/admin/performance/optimizations/7/undo", "", 200, "success:b message:s optimization:o"},
		{"POST /admin/performance/optimizations/{optimization_id}/undo", "/admin/performance/optimizations/6/undo", "", 409, problemFields},
		{"POST /admin/performance/optimizations/{optimization_id}/undo", "/admin/performance/optimizations/5/undo", "", 404, problemFields},
		{"GET /admin/performance/analysis", "/admin/performance/analysis?model_id=acme/here", "", 200, "verdict:s bottlenecks[ component:s share:n at_ceiling:b verdict:s evidence:a setting:s current:s advised:s command:s ] components:o connection_seconds:o ceilings:a unknown:o"},
		{"GET /admin/performance/analysis", "/admin/performance/analysis?model_id=acme/none", "", 404, problemFields},
		{"GET /admin/performance/analysis", "/admin/performance/analysis?model_id=../x", "", 422, problemFields},
		{"GET /admin/performance/baseline", "", "", 200, "timestamp:s hours:n figures{ *{ median:n mad:n samples:n } }"},
		{"POST /admin/performance/baseline", "", `{"hours":2}`, 200, "timestamp:s hours:n figures:o"},
		{"POST /admin/performance/baseline", "", `{"hours":-2}`, 422, problemFields},
		{"GET /admin/performance/regressions", "", "", 200, "threshold:n checked:s? baseline_at:s? regressions[ metric:s against:s before:n now:n worse_percent:n noise:n ] incidents[ metric:s since:s until:s? before:n worst:n worse_percent:n message:s ] not_judged:o"},
		{"GET /admin/performance/history", "/admin/performance/history?metric=system.cpu_usage_percent&step=60", "", 200, "metric:s from:s to:s step_seconds:n points:a"},
		{"GET /admin/performance/history", "/admin/performance/history?metric=luck", "", 404, problemFields},
		{"GET /admin/performance/history", "/admin/performance/history?metric=luck&from=yesterday", "", 422, problemFields},
		{"GET /admin/performance/history", "", "", 422, problemFields},
		{"POST /admin/benchmark", "", `{"suites":["system","storage"],"size_mb":4,"repeats":1}`, 200, "success:b message:s benchmark_id:s state:s estimated_completion:s least_seconds:n most_seconds:n"},
		{"POST /admin/benchmark", "", `{}`, 200, "success:b"},
		{"POST /admin/benchmark", "", `{"compare":true}`, 404, problemFields},
		{"POST /admin/benchmark", "", `{"generate_baseline":true}`, 409, "error{ code:s message:s details{ benchmark_id:s } }"},
		{"POST /admin/benchmark", "", `{"size_mb":16384}`, 507, problemFields},
		{"POST /admin/benchmark", "", `{"suites":["luck"]}`, 422, problemFields},
		{"POST /admin/benchmark", "", `{"suites":["api"],"full_assessment":true}`, 422, problemFields},
		{"GET /admin/benchmark", "", "", 200, "benchmarks[ " + benchmarkFields + " ]"},
		{"GET /admin/benchmark/{benchmark_id}", "/admin/benchmark/bm_1", "", 200, benchmarkFields},
		{"GET /admin/benchmark/{benchmark_id}", "/admin/benchmark/bm_0", "", 200, benchmarkFields + " report{ timestamp:n results:o recommendations:a metrics:o noisy:o unknown:o machine:o comparison:o }"},
		{"GET /admin/benchmark/{benchmark_id}", "/admin/benchmark/none", "", 404, problemFields},
		{"DELETE /admin/benchmark/{benchmark_id}", "/admin/benchmark/bm_1", "", 200, benchmarkFields},
		{"DELETE /admin/benchmark/{benchmark_id}", "/admin/benchmark/bm_0", "", 409, "error{ code:s message:s details{ state:s } }"},
		{"DELETE /admin/benchmark/{benchmark_id}", "/admin/benchmark/none", "", 404, problemFields},
		{"GET /config/current", "", "", 200, "config:o origins:o"},
		{"PUT /config/update", "", `{"log":{"level":"debug"}}`, 200, "success:b updated_settings:a restart_required:b restart_keys:a"},
		{"PUT /config/update", "", `{"wrong":1}`, 422, problemFields},
		{"GET /config/schema", "", "", 200, "type:s"},
		{"GET /config/profile", "", "", 200, "profile:s profiles[ name:s changes[ key:s now:n then:n restart_required:b ] warnings:a ]"},
		{"PUT /config/profile", "", `{"profile":"low_latency"}`, 200, "success:b updated_settings:a restart_required:b restart_keys:a"},
		{"PUT /config/profile", "", `{"profile":"fast"}`, 422, problemFields},
		{"POST /config/validate", "", `{"log":{}}`, 200, "valid:b mistakes:a warnings:a updated_settings:a restart_keys:a"},
		{"POST /config/validate", "", `{"wrong":1}`, 200, "valid:b mistakes[ key:s problem:s ]"},
		{"GET /admin/health", "", "", 200, "status:s timestamp:s uptime_seconds:n components{ *{ status:s message:s issues:a } }"},
		{"GET /admin/health/downloads", "", "", 200, healthFields},
		{"GET /admin/health/storage", "", "", 200, healthFields},
		{"GET /admin/health/models", "", "", 200, healthFields},
		{"GET /admin/health/db", "", "", 200, healthFields},
		{"GET /admin/version", "", "", 200, "version:s commit:s go:s platform:s pid:n started_at:s store:s"},
		{"GET /admin/resources", "", "", 200, "timestamp:s process{ pid:n goroutines:n open_files:n? cpu_usage_percent:n? } machine{ cpus:n memory_usage_percent:n? } disks:a"},
		{"GET /admin/audit", "", "", 200, "entries[ timestamp:s who:s role:s action:s result:s request_id:s ] page:n limit:n"},
		{"POST /admin/reload", "", "", 200, "success:b updated_settings:a restart_required:b restart_keys:a"},
		{"GET ^/healthz", "", "", 200, "status:s"},
		{"GET ^/readyz", "", "", 200, "status:s"},
		{"GET ^/debug/pprof/", "", "", 200, ""},
		{"GET ^/debug/pprof/{profile}", "^/debug/pprof/heap", "", 200, ""},
		{"GET ^/debug/pprof/{profile}", "^/debug/pprof/cmdline", "", 404, problemFields},
		{"POST /admin/profile/cpu", "/admin/profile/cpu?seconds=1", "", 200, ""},
		{"GET ^/debug/pprof/{profile}", "^/debug/pprof/profile?seconds=1", "", 200, ""},
		{"POST /admin/profile/cpu", "/admin/profile/cpu?seconds=many", "", 422, problemFields},
		{"POST /admin/profile/heap", "", "", 200, ""},
		{"POST /admin/profile/trace", "", "", 200, ""},
		{"GET ^/ws", "", "", 426, ""},
	} {
		method, pattern, _ := strings.Cut(c.op, " ")
		if c.path == "" {
			c.path = pattern
		}
		path, pattern := below(c.path), below(pattern)
		op := byRequest[method+" "+pattern]
		if op == nil {
			t.Errorf("%s is not in the document", c.op)
			continue
		}
		tried[op.ID] = true
		req, err := http.NewRequestWithContext(t.Context(), method, srv.URL+path, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		if c.body != "" {
			req.Header.Set("Content-Type", "application/json")
		}
		res, err := srv.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || res.StatusCode != c.status || res.Header.Get("X-Request-Id") == "" {
			t.Errorf("%s %s %s: %s, %v\n%s", method, path, c.body, res.Status, err, raw)
			continue
		}
		fits(t, op, res, raw)
		if c.fields == "" {
			continue
		}
		var got any
		if err := json.Unmarshal(raw, &got); err != nil {
			t.Errorf("%s: %v", c.op, err)
			continue
		}
		words := strings.Fields(c.fields)
		for _, wrong := range lacks("", got, &words) {
			t.Errorf("%s %s %s: %s", method, path, c.body, wrong)
		}
	}
	for _, op := range operations(t) {
		if !tried[op.ID] {
			t.Errorf("%s is documented and not tried", op.ID)
		}
	}
}

// below is the path on the server: below Base, unless it says ^.
func below(path string) string {
	if at, ok := strings.CutPrefix(path, "^"); ok {
		return at
	}
	return Base + path
}

// fits checks an answer against the document.
func fits(t testing.TB, op *documented, res *http.Response, raw []byte) {
	t.Helper()
	status := res.Status[:3]
	if _, ok := op.Responses[status]; !ok {
		if _, ok := op.Responses["default"]; !ok || res.StatusCode < 400 {
			t.Errorf("%s: the answer %s is not in the document", op.ID, status)
			return
		}
	}
	s := op.schema(t, status)
	if s == nil || len(raw) == 0 {
		return
	}
	if kind := res.Header.Get("Content-Type"); kind != "application/json" {
		t.Errorf("%s: %s comes as %q", op.ID, status, kind)
		return
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		t.Errorf("%s: %v in %q", op.ID, err, raw)
		return
	}
	if err := s.Validate(v); err != nil {
		t.Errorf("%s: the answer %s is not as documented: %v\n%s", op.ID, status, err, raw)
	}
}

// lacks are the fields of which words tell and v does not have. It consumes the words of v.
func lacks(at string, v any, words *[]string) (wrong []string) {
	object, ok := v.(map[string]any)
	if !ok && v != nil {
		return []string{at + " is no object"}
	}
	for len(*words) > 0 {
		word := (*words)[0]
		*words = (*words)[1:]
		if word == "}" || word == "]" {
			return wrong
		}
		inner := word[len(word)-1]
		name := word[:len(word)-1]
		switch {
		case inner == '{' && name == "*":
			rest := slices.Clone(*words)
			for id, one := range object {
				again := slices.Clone(rest)
				wrong = append(wrong, lacks(at+"."+id, one, &again)...)
				*words = again
			}
			if len(object) == 0 {
				wrong = append(wrong, at+" is empty, so that nothing is known of what is in it")
			}
		case inner == '{':
			wrong = append(wrong, lacks(at+"."+name, object[name], words)...)
		case inner == '[':
			list, ok := object[name].([]any)
			if !ok || len(list) == 0 {
				wrong = append(wrong, at+"."+name+" is no array, or an empty one")
				list = []any{nil}
			}
			wrong = append(wrong, lacks(at+"."+name+"[0]", list[0], words)...)
		default:
			name, kind, _ := strings.Cut(word, ":")
			value, there := object[name]
			if v != nil && (!there || !isOf(value, kind)) {
				wrong = append(wrong, at+"."+name+" is missing or of another type than "+kind)
			}
		}
	}
	return wrong
}

func isOf(v any, kind string) bool {
	ok := false
	switch kind[0] {
	case 's':
		_, ok = v.(string)
	case 'n':
		_, ok = v.(float64)
	case 'b':
		_, ok = v.(bool)
	case 'a':
		_, ok = v.([]any)
	case 'o':
		_, ok = v.(map[string]any)
	}
	return ok || v == nil && strings.HasSuffix(kind, "?")
}
