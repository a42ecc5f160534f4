package api

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"ema/internal/model"
)

// offerDownloads has what can be asked about downloads.
func (s *Server) offerDownloads(rt *router) {
	register(rt, operation{
		id: opManage, method: http.MethodPost, path: Base + "/models/download/manage", tag: tagDownloads, summary: "Start a download, or change its course",
		text: "Starting what is on its way already answers with that download; what a person had paused goes on. " +
			"Every other action than `start` needs the role `power_user`.",
		fails: []int{http.StatusNotFound, http.StatusConflict, http.StatusServiceUnavailable, http.StatusInsufficientStorage},
		asks: map[string]any{
			"start": map[string]any{"model_id": exampleModel, "action": starting},
			"start, with care": map[string]any{
				"model_id": exampleModel, "action": starting, "revision": "main", "priority": "high", "bandwidth_limit_mbps": 20, "include": []string{"*.safetensors", "*.json"},
			},
			"pause everything": map[string]any{"action": "pause", "all": true},
			"limit":            map[string]any{"model_id": exampleModel, "action": "limit", "bandwidth_limit_mbps": 5},
		},
		says: exampleManaged(),
	}, s.manage)
	register(rt, operation{
		id: opProgress, method: http.MethodGet, path: Base + "/models/download/progress/{model_id}", tag: tagDownloads, summary: "See how a download stands",
		text:  "It is the newest one of the model, unless `download_id` or `revision` names another.",
		fails: []int{http.StatusNotFound}, tagged: true, says: exampleDownload(),
	}, s.progress)
	register(rt, operation{
		id: opActive, method: http.MethodGet, path: Base + "/models/download/active", tag: tagDownloads, summary: "List downloads that are not over",
		text: "All of them in the order in which they run, or in another order and page by page.", tagged: true, says: exampleActive(),
	}, s.active)
	register(rt, operation{
		id: opHistory, method: http.MethodGet, path: Base + "/models/download/history", tag: tagDownloads, summary: "List downloads that are over",
		text: "Page by page.", tagged: true, says: exampleHistory(),
	}, s.history)
}

// ModelPath is the model that a request names in its path. It is exported because Huma looks into no other structs.
type ModelPath struct {
	Model string `path:"model_id" doc:"The model: org/name, as it is or escaped as org%2Fname." example:"acme/tiny-llm"`
	id    model.ID
}

// Resolve refuses what names no model.
func (n *ModelPath) Resolve(huma.Context) []error {
	var err error
	if n.id, err = model.ParseID(n.Model); err != nil && n.Model != "" {
		return []error{&huma.ErrorDetail{Location: "path.model_id", Message: err.Error(), Value: n.Model}}
	}
	return nil
}

// figures are those of a download; nil when there are none.
func (s *Server) figures(id string) *Figures {
	if s.Figures == nil || id == "" {
		return nil
	}
	return s.Figures(id)
}

// describe is what is told of d, with what counts where d itself does not say.
func (s *Server) describe(d model.Download, f *Figures, position int) Download {
	w := describe(d, f, position)
	if d.MaxRetries == 0 && s.MaxRetries != nil {
		w.MaxRetries = s.MaxRetries()
	}
	w.MaxRetries = max(w.MaxRetries, 0) // none
	return w
}

type activeRequest struct {
	Page  int    `query:"page" minimum:"1" maximum:"1000000" default:"1" doc:"The first one is 1; without limit there is no other."`
	Limit int    `query:"limit" minimum:"1" maximum:"100" doc:"How many a page has at most; all when it is left out."`
	Sort  string `query:"sort" enum:"queue,created_at,started_at,model_id,total_mb" default:"queue" doc:"What to sort by; queue is the order in which they run."`
	Order string `query:"order" enum:"asc,desc" default:"asc" doc:"The first, least or oldest one first, or the other way around."`
}

// arrange sorts downloads that are told, and picks the page.
func (r *activeRequest) arrange(list []Download) []Download {
	by := map[string]func(a, b Download) int{
		"created_at": func(a, b Download) int { return a.CreatedAt.Compare(b.CreatedAt) },
		"started_at": func(a, b Download) int { return orZero(a.StartedAt).Compare(orZero(b.StartedAt)) },
		"model_id":   func(a, b Download) int { return strings.Compare(a.Model, b.Model) },
		"total_mb":   func(a, b Download) int { return cmp.Compare(a.TotalBytes, b.TotalBytes) },
	}[r.Sort]
	if by != nil {
		slices.SortStableFunc(list, by)
	}
	if r.Order == "desc" {
		slices.Reverse(list)
	}
	if r.Limit == 0 {
		return list
	}
	from := min((r.Page-1)*r.Limit, len(list))
	return list[from:min(from+r.Limit, len(list))]
}

func orZero(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return *t
}

func (s *Server) active(_ context.Context, r *activeRequest) (*Active, error) {
	list := s.Queue.List()
	a := Active{Downloads: make([]Download, 0, len(list)), Total: len(list)}
	waiting := 0
	for _, d := range list {
		position := 0
		if d.State == model.Queued {
			waiting++
			position = waiting
		}
		one := s.describe(d, s.figures(d.ID), position)
		a.SpeedMBps += one.SpeedMBps
		a.Downloads = append(a.Downloads, one)
	}
	a.Downloads = r.arrange(a.Downloads)
	limit, why := s.Limit()
	a.LimitMBps, a.LimitWhy = mb(limit), why
	return &a, nil
}

type progressRequest struct {
	ModelPath
	DownloadID string `query:"download_id" doc:"This download of the model."`
	Revision   string `query:"revision" doc:"The newest download of this revision; main is the same as none." example:"main"`
}

// progress answers about the newest download of a model, or with ?download_id= about that one.
func (s *Server) progress(ctx context.Context, r *progressRequest) (*Download, error) {
	wanted := func(d model.Download) bool {
		if r.DownloadID != "" {
			return d.ID == r.DownloadID
		}
		return of(d, r.id) && (r.Revision == "" || sameRevision(d.Revision, r.Revision))
	}
	var found *model.Download
	waiting, position := 0, 0
	for _, d := range s.Queue.List() {
		if d.State == model.Queued {
			waiting++
		}
		if wanted(d) && (found == nil || d.Order > found.Order) {
			found, position = &d, 0
			if d.State == model.Queued {
				position = waiting
			}
		}
	}
	if found == nil && r.DownloadID != "" {
		if d, err := s.History.Download(ctx, r.DownloadID); err == nil {
			found = &d
		}
	}
	if found == nil && r.DownloadID == "" {
		var err error
		if found, err = s.past(ctx, wanted); err != nil {
			return nil, err
		}
	}
	if found == nil {
		return nil, unknown("look at", r.id)
	}
	figures := s.figures(found.ID)
	d := s.describe(*found, figures, position)
	d.Each = []FileProgress{}
	if figures != nil && figures.Each != nil {
		for _, f := range figures.Each() {
			one := FileProgress{Path: f.Path, SizeMB: mb(model.Bytes(f.Size)), SizeBytes: f.Size, DownloadedBytes: f.Written, ProgressPercent: 100}
			if f.Size > 0 {
				one.ProgressPercent = percent(model.Bytes(f.Written), model.Bytes(f.Size))
			}
			d.Each = append(d.Each, one)
		}
	}
	return &d, nil
}

// past is the newest download of the history that is wanted; nil when there is none.
func (s *Server) past(ctx context.Context, wanted func(model.Download) bool) (found *model.Download, err error) {
	err = s.each(ctx, func(list []model.Download) bool {
		if i := slices.IndexFunc(list, wanted); i >= 0 {
			found = &list[i]
		}
		return found == nil
	})
	return found, err
}

// each hands out the history piece by piece, newest first, as long as more is wanted.
func (s *Server) each(ctx context.Context, more func([]model.Download) bool) error {
	const page = 200
	for offset := 0; ; offset += page {
		list, err := s.History.History(ctx, page, offset)
		if err != nil {
			return err
		}
		if !more(list) || len(list) < page {
			return nil
		}
	}
}

// of reports whether d is a download of the model called id, as it was asked for or as it is shown.
func of(d model.Download, id model.ID) bool {
	return d.Model == id || d.Model.Public() == id.String()
}

// unknown is the answer about a model of which there is no download.
func unknown(op string, id model.ID) error {
	return &model.Error{
		Op: op, Class: model.NotFound, Model: id, Err: errors.New("it has no download, neither now nor earlier"),
		Hint: `see all with "ema ps --all"`,
	}
}

// Paging is the page of a list that a request is about. It is exported because Huma looks into no other structs.
type Paging struct {
	Page  int `query:"page" minimum:"1" maximum:"1000000" default:"1" doc:"The first one is 1."`
	Limit int `query:"limit" minimum:"1" maximum:"100" default:"20" doc:"How many a page has at most."`
}

func (p Paging) offset() int { return (p.Page - 1) * p.Limit }

type historyRequest struct {
	Paging
	Sort  string `query:"sort" enum:"ended_at,created_at,started_at,model_id,total_mb" default:"ended_at" doc:"The field to sort by."`
	Order string `query:"order" enum:"desc,asc" default:"desc" doc:"The greatest or newest first, or the other way around."`
}

// history answers with a page of what is over. The ledger has it newest first; for any other order all of it is read,
// which is some milliseconds for ten thousand downloads.
func (s *Server) history(ctx context.Context, r *historyRequest) (*History, error) {
	h := &History{Downloads: []Download{}, Page: r.Page, Limit: r.Limit}
	var list []model.Download
	var err error
	if r.Sort == "ended_at" && r.Order == "desc" {
		list, err = s.History.History(ctx, r.Limit, r.offset())
	} else {
		err = s.each(ctx, func(more []model.Download) bool { list = append(list, more...); return true })
		by := func(a, b model.Download) int { return compare(r.Sort, a, b) }
		if r.Order == "desc" {
			by = func(a, b model.Download) int { return compare(r.Sort, b, a) }
		}
		slices.SortStableFunc(list, by)
		from := min(r.offset(), len(list))
		list = list[from:min(from+r.Limit, len(list))]
	}
	if err != nil {
		return nil, err
	}
	for _, d := range list {
		h.Downloads = append(h.Downloads, s.describe(d, s.figures(d.ID), 0))
	}
	return h, nil
}

// compare is the order of downloads by a field; the id makes it one order only.
func compare(field string, a, b model.Download) int {
	first := 0
	switch field {
	case "created_at":
		first = a.Created.Compare(b.Created)
	case "started_at":
		first = a.Started.Compare(b.Started)
	case "model_id":
		first = strings.Compare(a.Model.Public(), b.Model.Public())
	case "total_mb":
		first = cmp.Compare(a.Size, b.Size)
	default:
		first = a.Ended.Compare(b.Ended)
	}
	return cmp.Or(first, strings.Compare(a.ID, b.ID))
}

// soon is when something is over that takes so many more seconds; nil when nobody knows.
func soon(seconds *float64) *time.Time {
	if seconds == nil {
		return nil
	}
	return moment(time.Now().Add(time.Duration(*seconds * float64(time.Second))))
}
