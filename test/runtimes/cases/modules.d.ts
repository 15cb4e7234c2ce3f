/** What edge runtimes make of imports that are no scripts. */
declare module '*.wasm' {
  const compiled: WebAssembly.Module;
  export default compiled;
}

declare module '*.onnx' {
  const bytes: ArrayBuffer;
  export default bytes;
}
