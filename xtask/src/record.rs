//! `cargo xtask record`: plays `clutch-service demo` and draws what it tells,
//! each line at the time it came, as `design/demo.svg`. The picture needs
//! nothing beside itself, and shows everything where nothing may move.

use anyhow::{Context as _, Result, ensure};
use clutch_tests::binaries::{self, SERVICE};
use clutch_tests::workspace;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// Where the picture goes.
const PICTURE: &str = "design/demo.svg";
/// The command by which a reader sees the same.
const TYPED: &str = "cargo run --release --bin clutch-service -- demo";
/// The width of a character, in tenths of a pixel.
const CHAR_TENTHS: usize = 84;
/// The height of a line, and what is around the text, in pixels.
const LINE: usize = 22;
const LEFT: usize = 28;
const TOP: usize = 76;
/// The demonstration's lines begin with a time and a mark, in these columns.
const MARK: usize = 10;
const TEXT: usize = 12;
/// How the lines end that only tell of progress.
const PROGRESS: &str = "results recorded";

const STYLE: &str = "\
svg { font: 14px ui-monospace, SFMono-Regular, 'SF Mono', Menlo, Consolas, 'Liberation Mono', \
monospace; fill: #c9d1d9; }
.typed { fill: #f0f6fc; font-weight: 600; }
.quiet, .quiet .number { fill: #7d8590; }
.number { fill: #79c0ff; }
.fault, .fault .number { fill: #ff7b72; font-weight: 600; }
.right, .right .number { fill: #56d364; font-weight: 600; }
.fault .quiet, .right .quiet { font-weight: 400; }
.late { animation: appear 0.15s ease-out both; }
@keyframes appear { from { opacity: 0; } to { opacity: 1; } }
@media (prefers-reduced-motion: reduce) { .late { animation: none; } }
";

/// A line and when it came.
struct Told {
    after: Duration,
    line: String,
}

/// Records a demonstration, and fails where that one fails.
pub(crate) fn run() -> Result<ExitCode> {
    binaries::build(true)?;
    let program = format!("target/release/{SERVICE}");
    let mut child = Command::new(&program)
        .arg("demo")
        .current_dir(workspace())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {program}"))?;
    let begun = Instant::now();
    let mut told = Vec::new();
    for line in BufReader::new(child.stdout.take().context("it has no stdout")?).lines() {
        let line = line.context("reading what it tells")?;
        println!("{line}");
        told.push(Told { after: begun.elapsed(), line });
    }
    let status = child.wait()?;
    ensure!(status.success(), "the demonstration failed ({status}): nothing is recorded");
    std::fs::write(workspace().join(PICTURE), picture(&told))
        .with_context(|| format!("writing {PICTURE}"))?;
    println!("recorded as {PICTURE}");
    Ok(ExitCode::SUCCESS)
}

/// The whole picture.
fn picture(told: &[Told]) -> String {
    let height = TOP + (told.len() + 2) * LINE + 6;
    let longest = told.iter().map(|one| one.line.chars().count()).max().unwrap_or_default();
    let width = 2 * LEFT + longest.max(TYPED.len() + 2) * CHAR_TENTHS / 10;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         width=\"{width}\" height=\"{height}\" role=\"img\" aria-label=\"A recorded run of \
         {TYPED}\">\n<style>\n{STYLE}</style>\n\
         <rect x=\"0.5\" y=\"0.5\" width=\"{}\" height=\"{}\" rx=\"10\" fill=\"#0d1117\" \
         stroke=\"#30363d\"/>\n",
        width - 1,
        height - 1
    );
    for (index, colour) in ["#ff5f57", "#febc2e", "#28c840"].iter().enumerate() {
        let x = LEFT + 20 * index;
        push(&mut svg, format_args!("<circle cx=\"{x}\" cy=\"26\" r=\"6\" fill=\"{colour}\"/>\n"));
    }
    push(
        &mut svg,
        format_args!(
            "<text class=\"quiet\" x=\"{}\" y=\"31\" text-anchor=\"end\">a recorded run, at its \
             own pace</text>\n",
            width - LEFT
        ),
    );
    push(
        &mut svg,
        format_args!(
            "<text x=\"{LEFT}\" y=\"{TOP}\"><tspan class=\"quiet\">$</tspan> <tspan \
             class=\"typed\">{TYPED}</tspan></text>\n"
        ),
    );
    for (index, one) in told.iter().enumerate() {
        draw(&mut svg, one, TOP + (index + 1) * LINE + LINE / 2);
    }
    svg.push_str("</svg>\n");
    svg
}

fn push(svg: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    svg.write_fmt(text).ok();
}

/// Draws a line that appears when it came.
fn draw(svg: &mut String, told: &Told, y: usize) {
    if told.line.trim().is_empty() {
        return;
    }
    let (time, mark, text, column) = parts(&told.line);
    let class = match mark {
        "✗" => "late fault",
        "✓" => "late right",
        _ if text.ends_with(PROGRESS) => "late quiet",
        _ => "late",
    };
    let after = told.after.as_secs_f64();
    push(svg, format_args!("<g class=\"{class}\" style=\"animation-delay: {after:.2}s\">"));
    for (column, class, text) in [
        (0, " class=\"quiet\"", escaped(time)),
        (MARK, "", escaped(mark)),
        (column, "", numbers(&escaped(text))),
    ] {
        if !text.trim().is_empty() {
            let x = LEFT + column * CHAR_TENTHS / 10;
            push(svg, format_args!("<text x=\"{x}\" y=\"{y}\"{class}>{text}</text>"));
        }
    }
    svg.push_str("</g>\n");
}

/// A line's time, mark and text, and the column that the text begins in.
fn parts(line: &str) -> (&str, &str, &str, usize) {
    let timed = line.get(..TEXT - 4).filter(|time| time.ends_with(" s"));
    let rest = timed.and_then(|time| line[time.len()..].strip_prefix("  "));
    if let (Some(time), Some(rest)) = (timed, rest) {
        let mark = rest.chars().next().map_or(0, char::len_utf8);
        return (time, &rest[..mark], rest[mark..].trim_start(), TEXT);
    }
    let text = line.trim_start();
    ("", "", text, line.len() - text.len())
}

/// Text as XML has it, with its spaces kept.
fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    text.replace("  ", "\u{a0}\u{a0}")
}

/// Sets off the numbers that stand for themselves.
fn numbers(text: &str) -> String {
    let words = text.split(' ').map(|word| {
        let digits = word.trim_end_matches([',', ';', ':', ')']).trim_start_matches('(');
        let number = digits.starts_with(|c: char| c.is_ascii_digit())
            && digits.chars().all(|c| c.is_ascii_digit() || ",.".contains(c));
        if number {
            word.replacen(digits, &format!("<tspan class=\"number\">{digits}</tspan>"), 1)
        } else {
            word.to_owned()
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_taken_apart_by_their_columns() {
        assert_eq!(parts("  0.19 s    found it"), ("  0.19 s", " ", "found it", 12));
        assert_eq!(parts(" 12.50 s  ✗ cut it"), (" 12.50 s", "✗", "cut it", 12));
        assert_eq!(parts("  a command"), ("", "", "a command", 2));
    }

    #[test]
    fn a_picture_has_every_line_at_its_time_and_is_sound() {
        let told =
            |ms, line: &str| Told { after: Duration::from_millis(ms), line: line.to_owned() };
        let svg = picture(&[
            told(190, "  0.19 s    2,000 tasks (pid 7): a < b & c"),
            told(2500, "  2.50 s  ✗ kill -9 7"),
            told(2500, ""),
        ]);
        assert!(svg.contains("animation-delay: 2.50s"), "{svg}");
        assert!(svg.contains("<tspan class=\"number\">2,000</tspan> tasks"), "{svg}");
        assert!(svg.contains("(pid <tspan class=\"number\">7</tspan>): a &lt; b &amp; c"), "{svg}");
        for tag in ["text", "tspan", "g", "svg", "style"] {
            let count = |begin: &str| svg.matches(begin).count();
            assert_eq!(count(&format!("<{tag}")), count(&format!("</{tag}>")), "{tag}: {svg}");
        }
    }
}
