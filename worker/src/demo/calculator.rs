//! Arithmetic, by a small operator-precedence parser that evaluates as it reads.

/// Brackets, signs and powers inside each other.
const MAX_DEPTH: usize = 64;

/// Why an expression has no value. Positions count bytes from 1.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(super) enum Error {
    #[error("at position {at}: {found} where {wanted} is expected")]
    Unexpected {
        at: usize,
        found: String,
        wanted: &'static str,
    },
    #[error("at position {at}: no function or constant is named {name:?}; there are {NAMES}")]
    UnknownName { at: usize, name: String },
    #[error("at position {at}: {function} takes {wanted} argument(s), not {given}")]
    Arguments {
        at: usize,
        function: String,
        wanted: &'static str,
        given: usize,
    },
    #[error("at position {at}: division by zero")]
    DivisionByZero { at: usize },
    #[error("nested more than {MAX_DEPTH} deep")]
    TooDeep,
    #[error("the result is not a finite number")]
    NotFinite,
}

const NAMES: &str =
    "abs, ceil, cos, e, exp, floor, ln, log10, max, min, pi, round, sin, sqrt and tan";

/// The value of an expression with + - * / % ^, brackets, numbers, constants and functions. `^` binds tightest and to
/// the right; `%` is the remainder with the sign of its left side.
pub(super) fn evaluate(expression: &str) -> Result<f64, Error> {
    let mut parser = Parser {
        text: expression,
        at: 0,
    };
    let value = parser.expression(0, 0)?;
    if parser.peek().is_some() {
        return Err(parser.unexpected("an operator or the end"));
    }
    if value.is_finite() {
        Ok(value)
    } else {
        Err(Error::NotFinite)
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

/// How tightly an operator binds to its left and its right.
fn binding(operator: u8) -> Option<(u8, u8)> {
    match operator {
        b'+' | b'-' => Some((1, 2)),
        b'*' | b'/' | b'%' => Some((3, 4)),
        b'^' => Some((8, 7)),
        _ => None,
    }
}

/// A sign binds less tightly than a power: -2^2 is -4.
const SIGN: u8 = 5;

impl Parser<'_> {
    fn expression(&mut self, least: u8, depth: usize) -> Result<f64, Error> {
        if depth > MAX_DEPTH {
            return Err(Error::TooDeep);
        }
        let mut left = self.operand(depth)?;
        while let Some(operator) = self.peek() {
            let Some((to_left, to_right)) = binding(operator) else {
                break;
            };
            if to_left < least {
                break;
            }
            let at = self.at + 1;
            self.at += 1;
            let right = self.expression(to_right, depth + 1)?;
            left = match operator {
                b'+' => left + right,
                b'-' => left - right,
                b'*' => left * right,
                b'^' => left.powf(right),
                _ if right == 0.0 => return Err(Error::DivisionByZero { at }),
                b'/' => left / right,
                _ => left % right,
            };
        }
        Ok(left)
    }

    fn operand(&mut self, depth: usize) -> Result<f64, Error> {
        match self.peek() {
            Some(b'-') => {
                self.at += 1;
                Ok(-self.expression(SIGN, depth + 1)?)
            }
            Some(b'+') => {
                self.at += 1;
                self.expression(SIGN, depth + 1)
            }
            Some(b'(') => {
                self.at += 1;
                let value = self.expression(0, depth + 1)?;
                self.expect(b')', "an operator or )")?;
                Ok(value)
            }
            Some(b'0'..=b'9' | b'.') => self.number(),
            Some(byte) if byte.is_ascii_alphabetic() => self.name(depth),
            _ => Err(self.unexpected("a number, a name, a sign or (")),
        }
    }

    fn number(&mut self) -> Result<f64, Error> {
        let bytes = self.text.as_bytes();
        let start = self.at;
        let mut end = start;
        while end < bytes.len() && (bytes[end].is_ascii_digit() || bytes[end] == b'.') {
            end += 1;
        }
        // An exponent only if digits follow: 2e is 2, and then a name that does not fit.
        if end < bytes.len() && matches!(bytes[end], b'e' | b'E') {
            let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
            let digits = bytes[end + 1 + sign..]
                .iter()
                .take_while(|byte| byte.is_ascii_digit())
                .count();
            if digits > 0 {
                end += 1 + sign + digits;
            }
        }
        let text = &self.text[start..end];
        let number = text
            .parse()
            .map_err(|_| self.unexpected("a number such as 1.5 or 2e3"))?;
        self.at = end;
        Ok(number)
    }

    fn name(&mut self, depth: usize) -> Result<f64, Error> {
        let start = self.at;
        let length = self.text[start..]
            .bytes()
            .take_while(u8::is_ascii_alphanumeric)
            .count();
        let name = &self.text[start..start + length];
        self.at += length;
        if self.peek() != Some(b'(') {
            return match name {
                "pi" => Ok(std::f64::consts::PI),
                "e" => Ok(std::f64::consts::E),
                _ => Err(Error::UnknownName {
                    at: start + 1,
                    name: name.to_owned(),
                }),
            };
        }
        self.at += 1;
        let mut arguments = Vec::new();
        if self.peek() == Some(b')') {
            self.at += 1;
        } else {
            loop {
                arguments.push(self.expression(0, depth + 1)?);
                if self.peek() != Some(b',') {
                    break;
                }
                self.at += 1;
            }
            self.expect(b')', "an operator, a comma or )")?;
        }
        call(name, &arguments, start + 1)
    }

    fn expect(&mut self, byte: u8, wanted: &'static str) -> Result<(), Error> {
        if self.peek() != Some(byte) {
            return Err(self.unexpected(wanted));
        }
        self.at += 1;
        Ok(())
    }

    /// The next byte that is not white space, without taking it.
    fn peek(&mut self) -> Option<u8> {
        let rest = &self.text.as_bytes()[self.at..];
        self.at += rest
            .iter()
            .take_while(|byte| byte.is_ascii_whitespace())
            .count();
        self.text.as_bytes().get(self.at).copied()
    }

    fn unexpected(&self, wanted: &'static str) -> Error {
        let found = match self.text[self.at..].chars().next() {
            Some(char) => format!("{char:?}"),
            None => "the end".to_owned(),
        };
        Error::Unexpected {
            at: self.at + 1,
            found,
            wanted,
        }
    }
}

fn call(function: &str, arguments: &[f64], at: usize) -> Result<f64, Error> {
    let many = |fold: fn(f64, f64) -> f64| match arguments.iter().copied().reduce(fold) {
        Some(value) => Ok(value),
        None => Err(Error::Arguments {
            at,
            function: function.to_owned(),
            wanted: "1 or more",
            given: 0,
        }),
    };
    let one: fn(f64) -> f64 = match function {
        "min" => return many(f64::min),
        "max" => return many(f64::max),
        "abs" => f64::abs,
        "ceil" => f64::ceil,
        "cos" => f64::cos,
        "exp" => f64::exp,
        "floor" => f64::floor,
        "ln" => f64::ln,
        "log10" => f64::log10,
        "round" => f64::round,
        "sin" => f64::sin,
        "sqrt" => f64::sqrt,
        "tan" => f64::tan,
        _ => {
            return Err(Error::UnknownName {
                at,
                name: function.to_owned(),
            });
        }
    };
    match arguments {
        [argument] => Ok(one(*argument)),
        _ => Err(Error::Arguments {
            at,
            function: function.to_owned(),
            wanted: "1",
            given: arguments.len(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(expression: &str, expected: f64) {
        let value = evaluate(expression).unwrap();
        assert!(
            (value - expected).abs() < 1e-9,
            "{expression} = {value}, not {expected}"
        );
    }

    #[test]
    fn operators_bind_as_in_school() {
        check("1 + 2 * 3", 7.0);
        check("(1 + 2) * 3", 9.0);
        check("10 - 4 - 3", 3.0);
        check("2 ^ 3 ^ 2", 512.0);
        check("-2 ^ 2", -4.0);
        check("2 ^ -1", 0.5);
        check("2 * -3", -6.0);
        check("7 % 4 + .5", 3.5);
        check("1.5e3/3", 500.0);
        check("-3 + 5", 2.0);
    }

    #[test]
    fn functions_and_constants_have_names() {
        check("sqrt(2) ^ 2", 2.0);
        check("max(1, 2 + 3, 4) - min(7)", -2.0);
        check("cos(pi) + ln(e)", 0.0);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let said = |expression: &str| evaluate(expression).unwrap_err().to_string();
        assert!(said("1 +").contains("position 4: the end"));
        assert!(said("(1").contains("the end where an operator or )"));
        assert!(said("1 2").contains("position 3"));
        assert!(said("2 € 3").contains('€'));
        assert!(said("foo(1)").contains("sqrt"));
        assert!(said("sqrt(1, 2)").contains("not 2"));
        assert!(said("1.2.3").contains("a number such as"));
        assert_eq!(
            evaluate("1 / (2 - 2)"),
            Err(Error::DivisionByZero { at: 3 })
        );
        assert_eq!(evaluate("10 ^ 999"), Err(Error::NotFinite));
        assert_eq!(evaluate("sqrt(-1)"), Err(Error::NotFinite));
        assert_eq!(evaluate(&"(".repeat(100_000)), Err(Error::TooDeep));
        assert_eq!(evaluate(&"-".repeat(100_000)), Err(Error::TooDeep));
        assert_eq!(evaluate(&"2^".repeat(100_000)), Err(Error::TooDeep));
        assert!(evaluate("").is_err());
    }
}
