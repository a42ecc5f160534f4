// Reads the header of a GGUF file from a path; prints its tensors' number and names as JSON.
import { gguf } from "@huggingface/gguf";

const { metadata, tensorInfos } = await gguf(process.argv[2], { allowLocalFile: true });
console.log(JSON.stringify({ version: metadata.version, tensors: tensorInfos.map((t) => t.name) }));
