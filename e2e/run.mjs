// Loads an ONNX model from a path and runs it on zeros; prints the outputs' shapes as JSON.
// usage: node run.mjs MODEL.onnx DIMENSIONS, e.g. 1,3,48,64
import { InferenceSession, Tensor } from "onnxruntime-node";

const [path, dimensions] = process.argv.slice(2);
const shape = dimensions.split(",").map(Number);
const session = await InferenceSession.create(path);
const input = new Tensor("float32", new Float32Array(shape.reduce((a, b) => a * b)), shape);
const outputs = await session.run({ [session.inputNames[0]]: input });
console.log(JSON.stringify(session.outputNames.map((name) => outputs[name].dims)));
