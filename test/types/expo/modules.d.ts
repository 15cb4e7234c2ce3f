/**
 * The types that `examples/expo` needs of packages that only apps install, with the unions and enums of their own
 * declarations: the options of `createInlay` have to take the real modules.
 */
declare module 'expo' {
  export function registerRootComponent(component: () => import('react').JSX.Element): void;
}

declare module 'expo-asset' {
  export class Asset {
    readonly localUri: string | null;
    static loadAsync(moduleId: number | string | readonly (number | string)[]): Promise<Asset[]>;
  }
}

declare module 'expo-crypto' {
  export enum CryptoDigestAlgorithm {
    SHA1 = 'SHA-1',
    SHA256 = 'SHA-256',
  }
  type IntegerArray = Int8Array | Int16Array | Int32Array | Uint8Array | Uint16Array | Uint32Array;
  export function getRandomValues<T extends IntegerArray>(typedArray: T): T;
  export function digest(algorithm: CryptoDigestAlgorithm, data: BufferSource): Promise<ArrayBuffer>;
}

declare module 'expo-file-system' {
  export class FileHandle {
    close(): void;
    readBytes(length: number): Uint8Array<ArrayBuffer>;
    writeBytes(bytes: Uint8Array): void;
    offset: number | null;
    size: number | null;
  }
  export class File {
    constructor(...uris: (string | File | Directory)[]);
    readonly uri: string;
    get name(): string;
    get exists(): boolean;
    get size(): number;
    get modificationTime(): number | null;
    create(options?: { intermediates?: boolean; overwrite?: boolean }): void;
    delete(): void;
    move(destination: Directory | File): void;
    open(): FileHandle;
  }
  export class Directory {
    constructor(...uris: (string | File | Directory)[]);
    readonly uri: string;
    get name(): string;
    get exists(): boolean;
    create(options?: { intermediates?: boolean; overwrite?: boolean; idempotent?: boolean }): void;
    list(): (Directory | File)[];
  }
  export const Paths: {
    readonly cache: Directory;
    readonly document: Directory;
    readonly availableDiskSpace: number;
  };
}

declare module 'react-native' {
  type Style = Readonly<Record<string, unknown>>;
  type AppStateStatus = 'active' | 'background' | 'inactive' | 'unknown' | 'extension';
  interface ViewProps {
    readonly style?: Style | readonly Style[];
    readonly pointerEvents?: 'none' | 'auto';
    readonly children?: import('react').ReactNode;
  }
  interface Touch {
    readonly nativeEvent: { readonly locationX: number; readonly locationY: number };
  }
  export const View: (props: ViewProps) => import('react').JSX.Element;
  export const Text: (props: ViewProps) => import('react').JSX.Element;
  export const Pressable: (
    props: ViewProps & { readonly onPress: () => void },
  ) => import('react').JSX.Element;
  export const StyleSheet: { create<Styles extends Readonly<Record<string, Style>>>(styles: Styles): Styles };
  export const PanResponder: {
    create(handlers: {
      readonly onStartShouldSetPanResponder?: () => boolean;
      readonly onPanResponderGrant?: (touch: Touch) => void;
      readonly onPanResponderMove?: (touch: Touch) => void;
    }): { readonly panHandlers: object };
  };
  export const AppState: {
    readonly currentState: AppStateStatus;
    addEventListener(
      type: 'change' | 'memoryWarning' | 'blur' | 'focus',
      listener: (state: AppStateStatus) => void,
    ): { remove(): void };
  };
}

declare const require: (path: string) => number;
