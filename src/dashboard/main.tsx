import { render } from 'preact';
import 'uplot/dist/uPlot.min.css';
import './style.css';
import { App } from './app.tsx';
import { createSession } from './session.ts';

const root = document.querySelector('#app');
if (root !== null) render(<App session={createSession()} />, root);
