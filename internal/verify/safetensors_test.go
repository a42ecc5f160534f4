package verify

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"ema/internal/model"
)

// safetensors makes a file from a header and the size of its buffer.
func safetensors(header string, buffer int) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(b, header...), make([]byte, buffer)...)
}

// knownSafetensors is the example of the format's reference: 72 bytes, one F32 tensor of two elements.
func knownSafetensors(t testing.TB) []byte {
	t.Helper()
	data, err := hex.DecodeString("3800000000000000" +
		"7b2261223a7b226474797065223a22463332222c227368617065223a5b325d2c22646174615f6f666673657473223a5b302c385d7d7d2020" +
		"0000803f000000c0")
	if err != nil {
		t.Fatal(err)
	}
	if got := model.SumSHA256(data).Hex(); got != "8aa3e2b342431367d957dd15ae6263303c3f27376d40e2d1bbec7012945eecf1" {
		t.Fatalf("the example has the sha256 %s", got)
	}
	return data
}

func TestSafetensors(t *testing.T) {
	one := func(dtype, shape, offsets string) string {
		return fmt.Sprintf(`{"a":{"dtype":%q,"shape":%s,"data_offsets":%s}}`, dtype, shape, offsets)
	}
	for promise, c := range map[string]struct {
		data  []byte
		want  Verdict
		words string
	}{
		"the reference's example is sound":              {knownSafetensors(t), OK, ""},
		"no tensors at all is sound":                    {safetensors("{}      ", 0), OK, ""},
		"metadata of strings is sound":                  {safetensors(`{"__metadata__":{"format":"pt","a":"[1,{}]\""}}`, 0), OK, ""},
		"a scalar has one element":                      {safetensors(one("F32", "[]", "[0,4]"), 4), OK, ""},
		"a dimension of 0 needs no bytes":               {safetensors(one("F32", "[0,9]", "[0,0]"), 0), OK, ""},
		"half bytes add up":                             {safetensors(one("F4", "[4]", "[0,2]"), 2), OK, ""},
		"half a byte too much is found":                 {safetensors(one("F4", "[3]", "[0,2]"), 2), Broken, "need 12 bits"},
		"spaces may be anywhere":                        {safetensors(" {}"[1:]+strings.Repeat(" ", 20), 0), OK, ""},
		"unknown keys of a tensor are passed by":        {safetensors(`{"a":{"x":[{"y":"]}"},1.5e3],"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 1), OK, ""},
		"order in the header does not matter":           {safetensors(`{"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 3), OK, ""},
		"an unknown dtype cannot be checked":            {safetensors(one("F3_X", "[2]", "[0,3]"), 3), Unknown, "F3_X"},
		"a file of 7 bytes is cut short":                {[]byte("1234567"), Broken, "cut short"},
		"a header of 0 bytes is refused":                {safetensors("", 8), Broken, "allowed are 1 to"},
		"a header above the limit is refused":           {binary.LittleEndian.AppendUint64(nil, 1<<63), Broken, "allowed are 1 to"},
		"a header beyond the file is found":             {safetensors(one("U8", "[1]", "[0,1]"), 1)[:30], Broken, "cut short"},
		"a web page is no safetensors file":             {[]byte("<!DOCTYPE html><html></html>"), Broken, "not a safetensors file"},
		"a header that is an array is refused":          {safetensors("[]", 0), Broken, "{"},
		"a header that is not JSON is refused":          {safetensors(`{"a":}`, 0), Broken, "JSON"},
		"a header that is not UTF-8 is refused":         {safetensors("{\"\xff\":1}", 0), Broken, "UTF-8"},
		"text behind the header's object is refused":    {safetensors("{}x", 0), Broken, "JSON"},
		"a hole is found":                               {safetensors(one("U8", "[1]", "[1,2]"), 2), Broken, "hole of 1 bytes"},
		"an overlap is found":                           {safetensors(`{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}`, 3), Broken, "inside the tensor before it"},
		"a missing last byte is found":                  {safetensors(one("U8", "[9]", "[0,9]"), 8), Broken, "cut short by 1 bytes"},
		"a byte too many is found":                      {safetensors(one("U8", "[9]", "[0,9]"), 10), Broken, "1 bytes follow"},
		"a size that is not the shape's is found":       {safetensors(one("F32", "[2]", "[0,4]"), 4), Broken, "need 64 bits"},
		"a shape beyond counting is refused":            {safetensors(one("F32", "[4294967296,4294967296]", "[0,4]"), 4), Broken, "can be counted"},
		"an end before the begin is refused":            {safetensors(one("U8", "[1]", "[1,0]"), 1), Broken, "before it begins"},
		"a negative offset is refused":                  {safetensors(one("U8", "[1]", "[-1,0]"), 1), Broken, "non-negative"},
		"a fraction is refused":                         {safetensors(one("U8", "[1.0]", "[0,1]"), 1), Broken, "non-negative"},
		"three offsets are refused":                     {safetensors(one("U8", "[1]", "[0,1,1]"), 1), Broken, "begin and end"},
		"a tensor without dtype is refused":             {safetensors(`{"a":{"shape":[1],"data_offsets":[0,1]}}`, 1), Broken, "missing"},
		"a tensor that is a number is refused":          {safetensors(`{"a":1}`, 0), Broken, "not described"},
		"the same name twice is found":                  {safetensors(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}`, 2), Broken, "twice"},
		"the same name twice is found through escapes":  {safetensors(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"\u0061":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}`, 2), Broken, "twice"},
		"the same key of a tensor twice is found":       {safetensors(`{"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 1), Broken, "dtype"},
		"metadata twice is found":                       {safetensors(`{"__metadata__":{},"__metadata__":{}}`, 0), Broken, "twice"},
		"metadata that is no string is found":           {safetensors(`{"__metadata__":{"a":1}}`, 0), Broken, "not a string"},
		"metadata that is no object is found":           {safetensors(`{"__metadata__":[]}`, 0), Broken, "not an object"},
		"a shape of more than 1024 dimensions is found": {safetensors(one("U8", "["+strings.Repeat("1,", 1024)+"1]", "[0,1]"), 1), Broken, "1024"},
		"offsets near the end of 64 bits are no trap":   {safetensors(one("U8", "[18446744073709551615]", "[0,18446744073709551615]"), 1), Broken, "more elements"},
	} {
		t.Run(promise, func(t *testing.T) {
			f := check("model.safetensors", c.data)
			wantVerdict(t, f, c.want, c.words)
			if f.Format != "safetensors" {
				t.Errorf("format = %q", f.Format)
			}
		})
	}
}

// Every file that a writer makes is sound, and no byte may be missing or added.
func TestWrittenSafetensorsAreSoundAndExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type entry struct {
			DType   string   `json:"dtype"`
			Shape   []uint64 `json:"shape"`
			Offsets [2]int   `json:"data_offsets"`
		}
		header := map[string]any{"__metadata__": map[string]string{"format": "pt"}}
		at := 0
		for _, name := range rapid.SliceOfNDistinct(rapid.String(), 1, 12, rapid.ID).Draw(t, "names") {
			dtype := rapid.SampledFrom([]string{"U8", "F16", "BF16", "F32", "I64"}).Draw(t, "dtype")
			shape := rapid.SliceOfN(rapid.Uint64Range(0, 5), 0, 3).Draw(t, "shape")
			n := int(dtypeBits(dtype) / 8)
			for _, d := range shape {
				n *= int(d)
			}
			header[name] = entry{dtype, append([]uint64{}, shape...), [2]int{at, at + n}}
			at += n
		}
		text, err := json.Marshal(header)
		if err != nil {
			t.Fatal(err)
		}
		data := safetensors(string(text), at)
		if f := check("x.safetensors", data); f.Verdict != OK {
			t.Fatalf("%s: %v %q", text, f.Verdict, f.Problems)
		}
		for _, wrong := range [][]byte{data[:len(data)-1], append(data, 0)} {
			if f := check("x.safetensors", wrong); f.Verdict != Broken {
				t.Fatalf("%s with %d bytes instead of %d: %v", text, len(wrong), len(data), f.Verdict)
			}
		}
	})
}
