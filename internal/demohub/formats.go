package demohub

import (
	"encoding/binary"
	"encoding/json"
	"fmt"

	"ema/internal/model"
)

// Safetensors makes a safetensors file (reference/hub-protocol, section 19.1) of exactly size bytes, or
// as many as its header needs, with this many tensors: BF16 of one dimension, the last one bytes when the
// rest is odd. The numbers are noise.
func Safetensors(path string, tensors int, size model.Bytes) Entry {
	tensors = max(1, tensors)
	type tensor struct {
		DType   string   `json:"dtype"`
		Shape   []int64  `json:"shape"`
		Offsets [2]int64 `json:"data_offsets"`
	}
	render := func(data int64) []byte {
		all := make(map[string]any, tensors+1)
		all["__metadata__"] = map[string]string{"format": "pt"}
		each := data / int64(tensors) &^ 1
		for i := range tensors {
			t := tensor{"BF16", []int64{each / 2}, [2]int64{int64(i) * each, int64(i+1) * each}}
			if i == tensors-1 {
				t.Offsets[1] = data
				rest := data - t.Offsets[0]
				t.Shape[0] = rest / 2
				if rest%2 != 0 {
					t.DType, t.Shape[0] = "U8", rest
				}
			}
			all[fmt.Sprintf("model.layers.%05d.weight", i)] = t
		}
		b, err := json.Marshal(all)
		if err != nil {
			return nil // maps of strings, numbers and structs of them are always JSON
		}
		return b
	}
	// The header is padded to the length it could have at most, since its numbers depend on what it leaves.
	length := (len(render(int64(size)))+7)/8*8 + 8
	data := max(0, int64(size)-8-int64(length))
	head := make([]byte, 8, 8+length)
	binary.LittleEndian.PutUint64(head, uint64(length))
	head = append(head, render(data)...)
	for len(head) < 8+length {
		head = append(head, ' ')
	}
	return generate(path, head, model.Bytes(int64(len(head))+data), seedOf(path)).LFS()
}

// ggufAlignment is the default of the format.
const ggufAlignment = 32

// GGUF makes a GGUF version 3 file (reference/hub-protocol, section 19.2) of exactly size bytes, or as
// many as its header needs, with this many tensors: F32 of one dimension, the last one I8 with the rest.
// The numbers are noise.
func GGUF(path string, tensors int, size model.Bytes) Entry {
	const typeF32, typeI8, valueU32, valueString = 0, 24, 4, 8
	tensors = max(1, tensors)
	le := binary.LittleEndian
	text := func(b []byte, s string) []byte { return append(le.AppendUint64(b, uint64(len(s))), s...) }
	render := func(data int64) []byte {
		b := []byte("GGUF")
		b = le.AppendUint32(b, 3)
		b = le.AppendUint64(b, uint64(tensors))
		b = le.AppendUint64(b, 3)
		b = text(le.AppendUint32(text(b, "general.architecture"), valueString), "llama")
		b = text(le.AppendUint32(text(b, "general.name"), valueString), "demo")
		b = le.AppendUint32(le.AppendUint32(text(b, "general.alignment"), valueU32), ggufAlignment)
		each := data / int64(tensors) / ggufAlignment * ggufAlignment
		for i := range tensors {
			kind, elements := uint32(typeF32), each/4
			if i == tensors-1 {
				kind, elements = typeI8, data-int64(i)*each
			}
			b = text(b, fmt.Sprintf("blk.%d.weight", i))
			b = le.AppendUint32(b, 1) // dimensions
			b = le.AppendUint64(b, uint64(elements))
			b = le.AppendUint32(b, kind)
			b = le.AppendUint64(b, uint64(int64(i)*each))
		}
		for len(b)%ggufAlignment != 0 {
			b = append(b, 0)
		}
		return b
	}
	data := max(0, int64(size)-int64(len(render(0)))) // the header's length does not depend on its numbers
	head := render(data)
	return generate(path, head, model.Bytes(int64(len(head))+data), seedOf(path)).LFS()
}
