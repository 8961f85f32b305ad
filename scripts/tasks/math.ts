/**
 * The family `math`: word problems of two to four operations on small whole numbers, put together
 * from an opening, steps and a closing question. The steps happen in the order of the text, so the
 * expression can be written from left to right.
 */
import type { Prng } from '../../core/prng.ts';
import type { Draft, Family } from './family.ts';

const PEOPLE: readonly (readonly [string, string])[] = [
  ['Anna', 'She'],
  ['Ben', 'He'],
  ['Clara', 'She'],
  ['David', 'He'],
  ['Emma', 'She'],
  ['Felix', 'He'],
  ['Grace', 'She'],
  ['Henry', 'He'],
];
const THINGS = ['apples', 'books', 'cards', 'pens', 'shells', 'stamps', 'stones', 'toys'] as const;

const OPERATIONS_MIN = 2;
const OPERATIONS_MAX = 4;
const RESULT_MAX = 999;

/** A problem half told: what it says, what has been counted, and how. */
interface Story {
  sentences: string[];
  expression: string;
  value: number;
  operations: number;
  /** The expression has a + or - outside parentheses. */
  isSum: boolean;
  template: string[];
  numbers: number[];
}

type Clause = (story: Story, prng: Prng) => void;

export const mathFamily: Family = {
  name: 'math',
  draw(prng) {
    for (;;) {
      const draft = tell(prng);
      if (draft !== null) return draft;
    }
  },
};

/** One random problem, or null when its numbers came out of range (about a third do). */
function tell(prng: Prng): Draft | null {
  const [name, pronoun] = prng.pick(PEOPLE);
  const thing = prng.pick(THINGS);
  const wanted = OPERATIONS_MIN + prng.below(OPERATIONS_MAX - OPERATIONS_MIN + 1);
  const closing = prng.pick(['keep', 'keep', 'share', 'price'] as const);
  const closingOperations = closing === 'keep' ? 0 : 1;
  const story: Story = {
    sentences: [],
    expression: '',
    value: 0,
    operations: 0,
    isSum: false,
    template: [],
    numbers: [],
  };
  prng.pick(openings(name, thing))(story, prng);
  while (story.operations < wanted - closingOperations) {
    prng.pick(steps(pronoun))(story, prng);
    if (story.value < 1) return null;
  }
  if (closing === 'share' && !share(story, prng, pronoun)) return null;
  if (closing === 'price') price(story, prng, thing);
  if (closing === 'keep') story.sentences.push(`How many ${thing} does ${name} have now?`);
  if (story.operations > OPERATIONS_MAX || story.operations < OPERATIONS_MIN) return null;
  if (story.value > RESULT_MAX) return null;
  return {
    key: `${story.template.join(' ')} | ${story.numbers.join(' ')}`,
    question: story.sentences.join(' '),
    truths: [String(story.value)],
    verifier: 'math',
    tools: ['javascript'],
    metadata: {
      operations: story.operations,
      template: story.template.join(' '),
      expression: story.expression,
    },
  };
}

function openings(name: string, thing: string): Clause[] {
  return [
    (story, prng) => {
      const [a] = numbers(story, 'has', prng, 19);
      story.sentences.push(`${name} has ${a} ${thing}.`);
      story.expression = `${a}`;
      story.value = a;
    },
    (story, prng) => {
      const [a, b] = numbers(story, 'boxes', prng, 9, 9);
      story.sentences.push(`${name} has ${a} boxes of ${b} ${thing}.`);
      story.expression = `${a}*${b}`;
      story.value = a * b;
      story.operations += 1;
    },
  ];
}

function steps(pronoun: string): Clause[] {
  return [
    (story, prng) => {
      const [c] = numbers(story, 'buys', prng, 19);
      story.sentences.push(`${pronoun} buys ${c} more.`);
      addTerm(story, '+', `${c}`, c);
    },
    (story, prng) => {
      const [c] = numbers(story, 'gives', prng, 19);
      story.sentences.push(`${pronoun} gives away ${c}.`);
      addTerm(story, '-', `${c}`, -c);
    },
    (story, prng) => {
      const [c, d] = numbers(story, 'bags', prng, 9, 9);
      story.sentences.push(`${pronoun} finds ${c} bags of ${d}.`);
      addTerm(story, '+', `${c}*${d}`, c * d);
      story.operations += 1;
    },
  ];
}

/** Divides by a number that leaves no remainder; false when there is none. */
function share(story: Story, prng: Prng, pronoun: string): boolean {
  const divisors = [2, 3, 4, 5, 6, 7, 8, 9].filter((n) => story.value % n === 0);
  if (divisors.length === 0) return false;
  const friends = prng.pick(divisors);
  note(story, 'share', friends);
  story.sentences.push(`${pronoun} shares them among ${friends} friends. How many does each get?`);
  scale(story, '/', friends);
  return true;
}

function price(story: Story, prng: Prng, thing: string): void {
  const [cost] = numbers(story, 'price', prng, 9);
  story.sentences.push(`Each one costs ${cost} dollars. What do the ${thing} cost?`);
  scale(story, '*', cost);
}

function addTerm(story: Story, sign: '+' | '-', term: string, value: number): void {
  story.expression += `${sign}${term}`;
  story.value += value;
  story.operations += 1;
  story.isSum = true;
}

function scale(story: Story, sign: '*' | '/', by: number): void {
  const inner = story.isSum ? `(${story.expression})` : story.expression;
  story.expression = `${inner}${sign}${by}`;
  story.value = sign === '*' ? story.value * by : story.value / by;
  story.operations += 1;
}

/** Draws numbers from 2 up to each bound and notes them with the clause's name. */
function numbers(story: Story, clause: string, prng: Prng, ...bounds: number[]): [number, number] {
  const drawn = bounds.map((bound) => 2 + prng.below(bound - 1));
  note(story, clause, ...drawn);
  return [drawn[0] ?? 0, drawn[1] ?? 0];
}

function note(story: Story, clause: string, ...values: number[]): void {
  story.template.push(clause);
  story.numbers.push(...values);
}
