import type { Model } from 'inlay';
import { useEffect, useMemo, useRef, useState, type JSX } from 'react';
import { PanResponder, Pressable, StyleSheet, Text, View } from 'react-native';
import { blankSheet, drawLine, SIDE, type Point } from './brush';
import { inkOf, inlay, loadDigits, readDigit, type Reading } from './digits';

const SIZE = 308;
const PIXEL = SIZE / SIDE;

/** A pad to write a digit on, and what the model makes of it. */
export function App(): JSX.Element {
  const [sheet, setSheet] = useState(blankSheet);
  const [reading, setReading] = useState<Reading>();
  const [note, setNote] = useState('Loading the model …');
  const model = useRef<Model>(undefined);
  const pen = useRef<Point>(undefined);

  useEffect(() => {
    loadDigits().then(
      (loaded) => {
        model.current = loaded;
        setNote('Write a digit.');
        loaded.on('swapped', () => setNote(`Version ${loaded.version ?? ''} came in over the air.`));
      },
      (error: unknown) => setNote(String(error)),
    );
    return () => {
      void model.current?.close();
    };
  }, []);

  useEffect(() => {
    let isCurrent = true;
    if (model.current && sheet.some((ink) => ink > 0)) {
      readDigit(model.current, sheet).then(
        (read) => isCurrent && setReading(read),
        (error: unknown) => setNote(String(error)),
      );
    }
    return () => {
      isCurrent = false;
    };
  }, [sheet]);

  const hand = useMemo(() => {
    const move = (x: number, y: number): void => {
      const to = { x: x / SIZE, y: y / SIZE };
      const from = pen.current ?? to;
      pen.current = to;
      setSheet((before) => drawLine(before, from, to));
    };
    return PanResponder.create({
      onStartShouldSetPanResponder: () => true,
      onPanResponderGrant: ({ nativeEvent }) => {
        pen.current = undefined;
        move(nativeEvent.locationX, nativeEvent.locationY);
      },
      onPanResponderMove: ({ nativeEvent }) => move(nativeEvent.locationX, nativeEvent.locationY),
    });
  }, []);

  const clear = (): void => {
    setSheet(blankSheet());
    setReading(undefined);
  };
  const update = (): void => {
    inlay.checkForUpdates().then(
      () => setNote('The server has been asked.'),
      (error: unknown) => setNote(String(error)),
    );
  };

  return (
    <View style={styles.page}>
      <View style={styles.sheet} {...hand.panHandlers}>
        {inkOf(sheet).map(({ at, ink }) => (
          <View
            key={at}
            pointerEvents="none"
            style={[
              styles.pixel,
              { left: (at % SIDE) * PIXEL, top: Math.floor(at / SIDE) * PIXEL, opacity: ink },
            ]}
          />
        ))}
      </View>
      <Text style={styles.digit}>{reading ? reading.digit : ' '}</Text>
      <Text>
        {reading
          ? `${Math.round(100 * reading.certainty)} % · version ${reading.version ?? 'of the app'} · ${reading.tookMs.toFixed(1)} ms`
          : note}
      </Text>
      <View style={styles.row}>
        <Pressable onPress={clear}>
          <Text style={styles.button}>Clear</Text>
        </Pressable>
        <Pressable onPress={update}>
          <Text style={styles.button}>Check for updates</Text>
        </Pressable>
      </View>
    </View>
  );
}

const styles = StyleSheet.create({
  page: { flex: 1, alignItems: 'center', justifyContent: 'center', gap: 16, backgroundColor: 'white' },
  sheet: { width: SIZE, height: SIZE, borderWidth: 1, borderColor: 'silver' },
  pixel: { position: 'absolute', width: PIXEL, height: PIXEL, backgroundColor: 'black' },
  digit: { fontSize: 72, fontVariant: ['tabular-nums'] },
  row: { flexDirection: 'row', gap: 32 },
  button: { fontSize: 18, color: 'royalblue' },
});
