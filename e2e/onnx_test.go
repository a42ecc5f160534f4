package e2e

import (
	"path/filepath"
	"slices"
	"testing"

	"ema/internal/demohub"
)

// Real models of a real runtime: what a pull prints is a path that onnxruntime loads and runs.
func TestModelsThatWerePulledRun(t *testing.T) {
	install(t)
	entries, err := demohub.Folder(filepath.Join("node_modules", "@gutenye", "ocr-models", "assets"))
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, demohub.Repo("gutenye/ocr", parts(entries)...))
	path := w.pull(t, "gutenye/ocr")
	holds(t, path, entries)
	for name, c := range map[string]struct {
		input  string
		output []int
	}{
		"ch_PP-OCRv4_det_infer.onnx":          {"1,3,64,96", []int{1, 1, 64, 96}},
		"ch_PP-OCRv4_rec_infer.onnx":          {"1,3,48,64", []int{1, 8, 6625}},
		"ch_ppocr_mobile_v2.0_cls_infer.onnx": {"1,3,48,192", []int{1, 2}},
	} {
		var outputs [][]int
		node(t, &outputs, "run.mjs", filepath.Join(path, name), c.input)
		if len(outputs) != 1 || !slices.Equal(outputs[0], c.output) {
			t.Errorf("%s gives %v, want %v", name, outputs, c.output)
		}
	}
}
