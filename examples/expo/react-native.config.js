// Expo leaves onnxruntime-react-native out of its autolinking, because the package still ships a `unimodule.json`:
// without this, importing it fails with "Cannot read property 'install' of null".
module.exports = {
  dependencies: {
    'onnxruntime-react-native': {
      platforms: {
        android: {
          packageImportPath: 'import ai.onnxruntime.reactnative.OnnxruntimePackage;',
          packageInstance: 'new OnnxruntimePackage()',
        },
      },
    },
  },
};
