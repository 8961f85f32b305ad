/**
 * Values of the small expressions that tasks and traces use: numbers, + - * /, parentheses and
 * Math.abs(...). A second opinion on what the javascript tool computes, without a sandbox; anything
 * else is refused.
 */
import { AppError } from '../../core/errors.ts';

/** The tokens of an expression: numbers, operators, parentheses, `Math.abs`. */
export function expressionTokens(expression: string): string[] {
  return expression.match(/Math\.abs|\d+(?:\.\d+)?|\S/g) ?? [];
}

/** The value as JavaScript prints it. Throws task_invalid when the text is no such expression. */
export function evaluateArithmetic(expression: string): string {
  const tokens = expressionTokens(expression);
  let at = 0;
  const fail = (): never => {
    throw new AppError('task_invalid', `not an arithmetic expression: ${expression}`);
  };
  const expect = (token: string): void => {
    if (tokens[at++] !== token) fail();
  };
  const sum = (): number => {
    let value = product();
    while (tokens[at] === '+' || tokens[at] === '-') {
      value = tokens[at++] === '+' ? value + product() : value - product();
    }
    return value;
  };
  const product = (): number => {
    let value = factor();
    while (tokens[at] === '*' || tokens[at] === '/') {
      value = tokens[at++] === '*' ? value * factor() : value / factor();
    }
    return value;
  };
  const factor = (): number => {
    const token = tokens[at++];
    if (token === '-') return -factor();
    if (token === '(' || token === 'Math.abs') {
      if (token === 'Math.abs') expect('(');
      const value = sum();
      expect(')');
      return token === '(' ? value : Math.abs(value);
    }
    return token !== undefined && /^\d/.test(token) ? Number(token) : fail();
  };
  const value = sum();
  return at === tokens.length ? String(value) : fail();
}
