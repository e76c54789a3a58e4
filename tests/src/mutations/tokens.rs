//! Finds tokens in code and puts others in their place; spaces, line breaks and comments
//! between tokens do not count. Pure.

use anyhow::{Result, ensure};
use proc_macro2::{Delimiter, TokenStream, TokenTree};
use std::collections::BTreeMap;
use std::ops::Range;

/// A word, a sign, a literal or a bracket, and where it is.
struct Token {
    text: String,
    is_word: bool,
    at: Range<usize>,
}

/// Replaces the only place where the tokens of `find` occur. `$name` in both stands for
/// one word.
pub(super) fn replace_once(code: &str, find: &str, replace: &str) -> Result<String> {
    let there = tokens(code)?;
    let wanted = pattern(find)?;
    ensure!(!wanted.is_empty(), "there is nothing to find");
    let found: Vec<(usize, BTreeMap<String, String>)> = (0..there.len())
        .filter_map(|start| Some((start, matches(there.get(start..)?, &wanted)?)))
        .collect();
    ensure!(found.len() == 1, "it has these tokens {} times instead of once: {find}", found.len());
    let (start, words) = &found[0];
    let (first, last) = (&there[*start], &there[start + wanted.len() - 1]);
    let mut replace = replace.to_owned();
    // A longer name may begin with a shorter one.
    for (name, word) in words.iter().rev() {
        replace = replace.replace(&format!("${name}"), word);
    }
    Ok([&code[..first.at.start], &replace, &code[last.at.end..]].concat())
}

/// Something to find: a token's text, or a name for any word.
enum Wanted {
    Text(String),
    Word(String),
}

fn pattern(find: &str) -> Result<Vec<Wanted>> {
    let mut wanted = Vec::new();
    let mut is_name = false;
    for Token { text, .. } in tokens(find)? {
        if text == "$" {
            is_name = true;
        } else if std::mem::take(&mut is_name) {
            wanted.push(Wanted::Word(text));
        } else {
            wanted.push(Wanted::Text(text));
        }
    }
    Ok(wanted)
}

/// The words that the names stand for, if the code begins with the tokens.
fn matches(code: &[Token], wanted: &[Wanted]) -> Option<BTreeMap<String, String>> {
    let mut words = BTreeMap::new();
    if code.len() < wanted.len() {
        return None;
    }
    for (token, wanted) in code.iter().zip(wanted) {
        let fits = match wanted {
            Wanted::Text(text) => *text == token.text,
            Wanted::Word(name) => {
                token.is_word
                    && *words.entry(name.clone()).or_insert_with(|| token.text.clone())
                        == token.text
            }
        };
        if !fits {
            return None;
        }
    }
    Some(words)
}

fn tokens(code: &str) -> Result<Vec<Token>> {
    let stream: TokenStream = code.parse().map_err(|error| anyhow::anyhow!("{error}: {code}"))?;
    let mut tokens = Vec::new();
    flatten(stream, &mut tokens);
    Ok(tokens)
}

fn flatten(stream: TokenStream, tokens: &mut Vec<Token>) {
    for tree in stream {
        let at = tree.span().byte_range();
        let sign = |text: &str, at| Token { text: text.to_owned(), is_word: false, at };
        match tree {
            TokenTree::Ident(word) => {
                tokens.push(Token { text: word.to_string(), is_word: true, at });
            }
            TokenTree::Punct(punct) => tokens.push(sign(&punct.as_char().to_string(), at)),
            TokenTree::Literal(literal) => tokens.push(sign(&literal.to_string(), at)),
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::None => ("", ""),
                };
                tokens.push(sign(open, group.span_open().byte_range()));
                flatten(group.stream(), tokens);
                tokens.push(sign(close, group.span_close().byte_range()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_found_whatever_is_between_them() {
        let code = "{ if a\n  .b() // why\n  { c(\"é\"); d }  }";
        let changed = replace_once(code, "a.b() { c(\"é\");", "x");
        assert!(changed.is_err(), "brackets of a pattern are whole");
        let changed = replace_once(code, "if a.b()", "if !a.b()").unwrap();
        assert_eq!(changed, "{ if !a.b() // why\n  { c(\"é\"); d }  }");
        assert_eq!(replace_once("a >= b", ">=", ">").unwrap(), "a > b");
        assert_eq!(replace_once("f(x).g()", ".g()", "").unwrap(), "f(x)");
    }

    #[test]
    fn a_name_stands_for_one_word_and_for_the_same_one() {
        let changed = replace_once("x.push(y, x)", "$a.push($ab, $a)", "$a.drop($ab)").unwrap();
        assert_eq!(changed, "x.drop(y)");
        assert!(replace_once("x.push(y, z)", "$a.push($ab, $a)", "").is_err());
        assert!(replace_once("1.push()", "$a.push()", "").is_err());
    }

    #[test]
    fn what_is_missing_or_ambiguous_is_an_error() {
        assert!(replace_once("a b", "c", "d").unwrap_err().to_string().contains("0 times"));
        assert!(replace_once("a b a", "a", "d").unwrap_err().to_string().contains("2 times"));
        assert!(replace_once("a", "", "d").is_err());
    }
}
