//! The tokens by which tasks are known on their socket.
//!
//! Asks the system for chance once. Promises that a token has 128 bits which no other token
//! tells, and that making one takes no call of the system: most tasks never use theirs.

use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::str::FromStr;
use uuid::Uuid;

/// The token of a run, or of a worker.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Token(u128);

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl FromStr for Token {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(());
        }
        u128::from_str_radix(text, 16).map(Self).map_err(|_| ())
    }
}

/// Makes tokens: each half is the keyed hash of a secret and a number.
#[derive(Debug)]
pub(super) struct Tokens {
    halves: [(RandomState, Uuid); 2],
    next: u64,
}

impl Default for Tokens {
    fn default() -> Self {
        Self { halves: std::array::from_fn(|_| (RandomState::new(), Uuid::new_v4())), next: 0 }
    }
}

impl Tokens {
    /// Makes a token.
    pub(super) fn make(&mut self) -> Token {
        self.next += 1;
        let [high, low] = self
            .halves
            .each_ref()
            .map(|(keys, secret)| u128::from(keys.hash_one((secret, self.next))));
        Token(high << 64 | low)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn tokens_differ_and_are_read_as_they_are_written() {
        let (mut one, mut other) = (Tokens::default(), Tokens::default());
        let made: HashSet<Token> = (0..1000).flat_map(|_| [one.make(), other.make()]).collect();
        assert_eq!(made.len(), 2000);
        for token in made {
            assert_eq!(token.to_string().parse(), Ok(token));
        }
        for bad in ["", "0", "+0000000000000000000000000000000", &"g".repeat(32), &"0".repeat(33)] {
            assert_eq!(bad.parse::<Token>(), Err(()), "{bad}");
        }
        assert_eq!(format!("{:?}", one.make()), "Token(…)", "none is in a log");
    }
}
