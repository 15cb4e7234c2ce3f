/** Only apps can install this package. */
declare module 'onnxruntime-react-native' {
  export const InferenceSession: import('./onnxruntime-react-native.ts').OrtReactNativeModule['InferenceSession'];
  export const listSupportedBackends: import('./onnxruntime-react-native.ts').OrtReactNativeModule['listSupportedBackends'];
}
