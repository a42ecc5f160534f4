package live

import (
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestTheDocumentationListsEveryMessageWithItsFields(t *testing.T) {
	raw, err := os.ReadFile("../../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| (.*) \\|$").FindAllStringSubmatch(string(raw), -1) {
		documented[row[1]] = row[2]
	}
	told := map[string]reflect.Type{
		downloadProgress: reflect.TypeFor[progressMessage](), healthAlert: reflect.TypeFor[healthMessage](), performanceAlert: reflect.TypeFor[performanceMessage](), updateAvailable: reflect.TypeFor[updateMessage](), modelAvailable: reflect.TypeFor[awaitedMessage](), availabilityChange: reflect.TypeFor[changeMessage](), storageAlert: reflect.TypeFor[storageMessage](),
		downloadRetry: reflect.TypeFor[retryMessage](), bandwidthLimit: reflect.TypeFor[limitMessage](), storageMove: reflect.TypeFor[moveMessage](), optimization: reflect.TypeFor[optimizationMessage](), benchmarkProgress: reflect.TypeFor[benchmarkMessage](),
	}
	for _, kind := range types() {
		text, ok := documented[kind]
		if !ok {
			t.Errorf("%s is not in the page", kind)
			continue
		}
		delete(documented, kind)
		if told[kind] == nil {
			continue // nothing tells it yet
		}
		for _, f := range reflect.VisibleFields(told[kind]) {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if !f.Anonymous && !slices.Contains([]string{"type", "seq", "timestamp", "model_id", "download_id"}, name) && !strings.Contains(text, "`"+name+"`") {
				t.Errorf("%s: the page lacks the field %s", kind, name)
			}
		}
	}
	for kind := range documented {
		t.Errorf("the page has the message %s, which there is not", kind)
	}
}
