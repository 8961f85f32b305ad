/** Code that tries to leave the JavaScript sandbox or to use up what it has, for its tests. */

/** What is tried, the code, and what its outcome must be. */
export const PROBES: readonly [string, string, RegExp][] = [
  // Ways to the host.
  [
    'names of the host',
    'Reflect.ownKeys(globalThis).filter((k) => typeof k === "string" && ' +
      '/^(process|require|module|Buffer|fetch|Worker|Deno|Bun|std|os|WebAssembly)$/.test(k))',
    /^ok: \[\]$/,
  ],
  ['the function constructor', 'Function("return typeof process")()', /^ok: undefined$/],
  [
    'the constructor of everything',
    '[].constructor.constructor("return typeof process + typeof require")()',
    /^ok: undefinedundefined$/,
  ],
  [
    'the constructor of a function of the host',
    'console.log.constructor("return this")() === globalThis',
    /^ok: true$/,
  ],
  ['async functions', '(async () => {}).constructor("return typeof process")()', /^ok: undefined$/],
  [
    'generators',
    '(function* () {}).constructor("yield typeof process")().next().value',
    /undefined/,
  ],
  ['a module', 'import("node:fs")', /^tool_failed: .*could not load module/],
  ['a module from data', 'import("data:text/javascript,1")', /^tool_failed: /],
  ['a static import', 'import os from "os"', /^tool_failed: SyntaxError/],
  ['import.meta', 'import.meta.url', /^tool_failed: SyntaxError/],
  ['callers', '(function f() { return f.caller ?? "none"; })()', /none|TypeError/],
  [
    'strict callers',
    '(function () { return arguments.callee.caller; })() ?? "none"',
    /none|TypeError/,
  ],
  ['stacks', 'new Error("x").stack', /^ok: (?!.*(node_modules|\/tools\/))/s],
  [
    'stack frames',
    'Error.prepareStackTrace = (_, f) => f[0].getThis(); new Error().stack',
    /^(ok|tool_failed)/,
  ],
  ['files', 'typeof open + typeof load + typeof read + typeof scriptArgs', /^ok: (undefined){4}$/],
  ['timers', 'typeof setTimeout + typeof setInterval + typeof queueMicrotask', /^ok: \w+$/],
  ['shared memory', 'typeof Atomics === "object" && Atomics.wait ? "wait" : "none"', /^ok: \w+$/],
  [
    'waiting on shared memory',
    'Atomics.wait(new Int32Array(new SharedArrayBuffer(8)), 0, 0, 1e9)',
    /^tool_(failed|timeout): /,
  ],
  // What the prelude relies on is taken away or replaced.
  ['JSON replaced', 'JSON.stringify = () => { throw 1; }; ({ a: 1 })', /^ok: \{"a":1\}$/],
  ['String replaced', 'globalThis.String = null; 5', /^ok: 5$/],
  ['no console', 'delete globalThis.console; 5', /^ok: 5$/],
  ['all frozen', 'Object.freeze(globalThis); Object.freeze(Object.prototype); 5', /^ok: 5$/],
  ['Array replaced', 'Array.prototype.join = () => "taken"; console.log(1, 2)', /^ok: taken$/],
  [
    'a prototype with a setter',
    'Object.defineProperty(Object.prototype, "value", { set() { throw 1; } }); 5',
    /^ok: 5$/,
  ],
  [
    'then',
    'Object.prototype.then = function (r) { r("taken"); }; ({ a: 1 })',
    /^(ok|tool_failed): /,
  ],
  ['a proxy', 'new Proxy({}, { get: () => { throw new Error("trap"); } })', /^tool_failed: .*trap/],
  ['a proxy of a function', 'new Proxy(function () {}, { apply: () => 1 })', /^(ok|tool_failed): /],
  [
    'a getter that throws',
    '({ get a() { throw new Error("got"); } })',
    /^tool_failed: Error: got$/,
  ],
  ['a circle', 'const a = {}; a.a = a; a', /^tool_failed: TypeError: circular/],
  [
    'text that throws',
    '({ toJSON: undefined, toString() { throw new TypeError("no"); } })',
    /^ok: \{\}$/,
  ],
  ['a symbol', 'Symbol("x")', /^ok: Symbol\(x\)$/],
  ['a big integer', '2n ** 64n', /^ok: 18446744073709551616$/],
  ['nothing thrown', 'throw undefined', /^tool_failed: /],
  ['a symbol thrown', 'throw Symbol("x")', /^tool_failed: /],
  [
    'an error without a message',
    'throw Object.assign(new Error(), { message: {} })',
    /^tool_failed: /,
  ],
  ['a long error', 'throw new Error("x".repeat(1e6))', /^tool_failed: Error: x{400}/],
  ['a thrown proxy', 'throw new Proxy({}, { get() { throw 1; } })', /^tool_failed: /],
  // Signs.
  ['odd signs', '"żółć 🙂 \\u202E \\0 \\ud83d"', /^ok: żółć 🙂 \u202E \\0 /],
  ['odd names', 'var \\u{61}\\u0062 = 1; ab', /^ok: 1$/],
  ['a line of much code', `${'1+'.repeat(20_000)}1`, /^ok: 20001$/],
  ['much nesting', `${'['.repeat(20_000)}${']'.repeat(20_000)}`, /^tool_failed: /],
  // Too much of something, refused at once.
  [
    'deep recursion',
    'function f() { return f() + 1; } f()',
    /^tool_failed: InternalError: stack overflow/,
  ],
  ['recursion in a sort', 'const s = () => [2, 1].sort(s); s()', /^tool_failed: .*stack overflow/],
  [
    'recursion in JSON',
    'const o = { toJSON() { return JSON.stringify(o); } }; JSON.stringify(o)',
    /^tool_failed: .*stack overflow/,
  ],
  [
    'recursion in a getter',
    'const o = { get a() { return o.a; } }; o.a',
    /^tool_failed: .*stack overflow/,
  ],
  [
    'recursion in a proxy',
    'const p = new Proxy({}, { get: (_, k) => p[k] }); p.x',
    /^tool_failed: .*stack overflow/,
  ],
  [
    'recursion in a replacement',
    'const f = () => "a".replace(/a/, f); f()',
    /^tool_failed: .*stack overflow/,
  ],
  ['a long array', 'new Array(2 ** 32)', /^tool_failed: RangeError/],
  ['much memory at once', 'new ArrayBuffer(2 ** 31)', /^tool_failed: /],
  ['a long text', '"x".padEnd(2 ** 30)', /^tool_failed: /],
  ['a normal form', '"ﷺ".repeat(1e6).normalize("NFKC").length', /^(ok|tool_failed|tool_timeout): /],
];

/** These would go on for ever. */
export const STOPPED_PROBES: readonly [string, string][] = [
  ['a loop that catches', 'for (;;) try { for (;;); } catch {} finally { continue; }'],
  ['an async loop', '(async () => { for (;;) await 0; })()'],
  ['a sort', '[3, 2, 1].sort(() => { for (;;); })'],
  ['a proxy trap', 'new Proxy({}, { ownKeys() { for (;;); } })'],
  ['a thrown getter', 'throw { get message() { for (;;); } }'],
  ['a thrown text', 'throw { name: "x", toString() { for (;;); }, toJSON() { for (;;); } }'],
  ['a conversion', '`${{ [Symbol.toPrimitive]() { for (;;); } }}`'],
  ['a regular expression', '/^(([a-z])+.)+[A-Z]([a-z])+$/.test("a".repeat(100))'],
  ['alternatives', '/^(a|a|a)*$/.test("a".repeat(60) + "b")'],
  ['a class body', 'class A { static { for (;;); } }'],
  ['nested eval', 'const e = () => eval("e()"); for (;;) try { e(); } catch {}'],
  ['console', 'for (;;) console.log({ toJSON() { return "x".repeat(1e4); } })'],
];

/** These end by memory or by time, whichever comes first. */
export const ENDING_PROBES: readonly [string, string][] = [
  ['promises without end', 'const f = () => Promise.resolve().then(f); f()'],
  ['a number that grows', 'let x = 3n; for (;;) x *= x'],
  ['an endless iterator', '[...{ *[Symbol.iterator]() { for (;;) yield 1; } }]'],
  ['a map', 'const m = new Map(); for (let i = 0; ; i++) m.set(i, { i })'],
  ['closures', 'let f = () => 1; for (;;) { const g = f; f = () => g(); }'],
  ['a text that doubles', 'let s = "ab"; for (;;) s += s'],
  ['an array of arrays', 'const a = []; for (;;) a.push(Array(1e5).fill(a))'],
  ['symbols', 'const a = []; for (;;) a.push(Symbol(a.length))'],
  ['functions', 'const a = []; for (;;) a.push(Function("return " + a.length))'],
  ['regular expressions', 'const a = []; for (;;) a.push(RegExp("a{1,999}".repeat(9) + a.length))'],
  ['weak references', 'const a = []; for (;;) a.push(new WeakRef({ x: a.length }))'],
  ['a join', 'Array(2 ** 25).join("abcdefgh")'],
  ['errors', 'const a = []; for (;;) a.push(new Error("x".repeat(1e3)))'],
  ['a replacement', '"a".repeat(1e6).replace(/a/g, "a".repeat(1e4))'],
];
