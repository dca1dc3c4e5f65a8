//! Lines of code per part: which file is whose (scripts/parts.txt), and what the parts may be.

use std::path::{Path, PathBuf};
use std::process::Command;

use harness::Result;

use crate::process::root;

/// Parts, with what they are.
const PARTS: [(&str, &str); 8] = [
    ("boot", "boot, gone after launch"),
    ("paper", "runtime: what the paper's runtime did"),
    ("verify", "runtime: exact verification of modules"),
    ("further", "runtime: further"),
    ("end", "the report of SecVisor's own failure"),
    ("guest", "guest kernels and interface"),
    ("host", "host tools and scripts"),
    ("tests", "tests"),
];
const RUNTIME: [&str; 3] = ["paper", "verify", "further"];
/// Budget of the paper-equivalent part: the paper's own runtime.
pub const PAPER_BUDGET: usize = 1112;
/// Budget of everything that runs after launch, exact verification of modules included.
pub const RUNTIME_BUDGET: usize = 3520;
const SOURCES: [&str; 8] = ["rs", "s", "S", "c", "h", "ld", "sh", "py"];

/// Each source file's part and lines.
pub struct Lines(Vec<(String, String, usize)>);

impl Lines {
    fn of(&self, part: &str) -> usize {
        self.0.iter().filter(|(of, ..)| of == part).map(|(.., lines)| lines).sum()
    }

    /// Lines of what equals the paper's runtime.
    pub fn paper(&self) -> usize {
        self.of("paper")
    }

    /// Lines of all that runs after launch.
    pub fn runtime(&self) -> usize {
        RUNTIME.iter().map(|part| self.of(part)).sum()
    }
}

/// Counts the checkout; an error names files in no part or in two.
pub fn count() -> Result<Lines> {
    let root = root();
    let manifest = std::fs::read_to_string(root.join("scripts/parts.txt"))?;
    let rules = rules(&manifest)?;
    let mut lines = Vec::new();
    let mut wrong = Vec::new();
    for file in sources(&root)? {
        let mut parts: Vec<_> =
            rules.iter().filter(|rule| matches(rule.1, &file)).map(|rule| rule.0).collect();
        parts.dedup();
        match parts.as_slice() {
            [part] => {
                let text = std::fs::read_to_string(root.join(&file))?;
                let count = code_lines(&file, &text);
                lines.push(((*part).to_owned(), file, count));
            }
            [] => wrong.push(format!("{file} is in no part")),
            _ => wrong.push(format!("{file} is in {}", parts.join(" and in "))),
        }
    }
    if wrong.is_empty() {
        return Ok(Lines(lines));
    }
    Err(format!("scripts/parts.txt: {}", wrong.join("; ")).into())
}

/// Fails where a file's part is not clear or a budget is exceeded.
pub fn check() -> Result<()> {
    let lines = count()?;
    for (what, count, budget) in [
        ("paper-equivalent runtime", lines.paper(), PAPER_BUDGET),
        ("runtime", lines.runtime(), RUNTIME_BUDGET),
    ] {
        if count > budget {
            return Err(format!("{count} lines of {what}, budget {budget}").into());
        }
    }
    Ok(())
}

/// Prints the table, the files of the runtime first; false if a budget is exceeded.
pub fn print() -> Result<bool> {
    let mut lines = count()?;
    lines.0.sort();
    for (part, file, count) in lines.0.iter().filter(|(part, ..)| RUNTIME.contains(&&**part)) {
        println!("{count:>6}  {part:<8} {file}");
    }
    println!();
    for (part, what) in PARTS {
        println!("{:>6}  {what}", lines.of(part));
    }
    println!("paper-equivalent {} of {PAPER_BUDGET}", lines.paper());
    println!("runtime {} of {RUNTIME_BUDGET}", lines.runtime());
    Ok(check().is_ok())
}

fn rules(manifest: &str) -> Result<Vec<(&str, &str)>> {
    let lines = manifest.lines().map(str::trim);
    let rules = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    rules
        .map(|line| {
            let (part, pattern) =
                line.split_once(char::is_whitespace).ok_or("a part needs files")?;
            if !PARTS.iter().any(|known| known.0 == part) {
                return Err(format!("scripts/parts.txt: no part {part}").into());
            }
            Ok((part, pattern.trim()))
        })
        .collect()
}

/// Source files of the checkout, those not yet committed included.
pub fn sources(root: &Path) -> Result<Vec<String>> {
    let arguments = ["ls-files", "--cached", "--others", "--exclude-standard"];
    let output = Command::new("git").current_dir(root).args(arguments).output()?;
    let text = String::from_utf8(output.stdout)?;
    let source = |file: &&str| {
        let path = PathBuf::from(file);
        let script = || std::fs::read(root.join(file)).is_ok_and(|data| data.starts_with(b"#!"));
        let known = path.extension().and_then(|e| e.to_str()).map(|e| SOURCES.contains(&e));
        root.join(file).is_file() && known.unwrap_or_else(script)
    };
    Ok(text.lines().filter(source).map(str::to_owned).collect())
}

/// Whether `file` fits a pattern in which `*` stands for any characters.
fn matches(pattern: &str, file: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == file,
        Some((start, rest)) => file.strip_prefix(start).is_some_and(|left| {
            left.char_indices()
                .map(|(at, _)| at)
                .chain([left.len()])
                .any(|at| matches(rest, &left[at..]))
        }),
    }
}

/// Lines with code: no blank lines, no comments, in Rust no `#[cfg(test)] mod` blocks.
pub fn code_lines(file: &str, text: &str) -> usize {
    let hash_comments =
        !["rs", "c", "h", "s", "S", "ld"].iter().any(|e| file.ends_with(&format!(".{e}")));
    if hash_comments {
        let code = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
        return text.lines().filter(code).count();
    }
    let bare = without_comments(text, file.ends_with(".rs"));
    let kept = if file.ends_with(".rs") { without_tests(&bare) } else { bare };
    kept.lines().filter(|line| !line.trim().is_empty()).count()
}

/// The text with comments blanked; string literals keep only their quotes, so that braces count.
pub fn without_comments(text: &str, rust: bool) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let taken = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest, rust)
        } else if let Some(length) = string(rest, rust) {
            out.push_str("\"s\"");
            length
        } else if let Some(length) = rust.then(|| character(rest)).flatten() {
            out.push_str("'c'");
            length
        } else {
            out.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        };
        // A line inside a literal is code; inside a comment it is not.
        let fill = if rest.starts_with('/') { "\n" } else { "\n." };
        out.extend(rest[..taken].matches('\n').map(|_| fill));
        rest = &rest[taken..];
    }
    out
}

fn block_comment(text: &str, nested: bool) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < text.len() {
        if text[at..].starts_with("/*") && (nested || depth == 0) {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// Length of the string literal at the start, raw ones included.
fn string(text: &str, rust: bool) -> Option<usize> {
    if let Some(inner) = text.strip_prefix('"') {
        let mut escaped = false;
        let end = inner.find(|c| {
            let found = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            found
        });
        return Some(end.map_or(text.len(), |end| end + 2));
    }
    let raw = text.strip_prefix('r').filter(|_| rust)?;
    let hashes = raw.len() - raw.trim_start_matches('#').len();
    raw[hashes..].strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(hashes));
    let body = hashes + 2;
    Some(text[body..].find(&close).map_or(text.len(), |end| body + end + close.len()))
}

/// Length of the character literal at the start; a lifetime is none.
fn character(text: &str) -> Option<usize> {
    let inner = text.strip_prefix('\'')?;
    if let Some(escape) = inner.strip_prefix('\\') {
        let skipped = escape.chars().next()?.len_utf8();
        return Some(escape[skipped..].find('\'')? + skipped + 3);
    }
    let first = inner.chars().next()?.len_utf8();
    inner[first..].starts_with('\'').then_some(first + 2)
}

/// The text without `#[cfg(test)]` modules.
pub fn without_tests(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("#[cfg(test)]") {
        out.push_str(&rest[..at]);
        let after = &rest[at + "#[cfg(test)]".len()..];
        rest = match after.trim_start().strip_prefix("mod ") {
            Some(module) => &module[item(module)..],
            None => after,
        };
    }
    out + rest
}

/// Length of an item that ends with a semicolon or with its braces.
fn item(text: &str) -> usize {
    let mut depth = 0;
    for (at, character) in text.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ';' => (),
            _ => continue,
        }
        if depth == 0 {
            return at + 1;
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_what_is_counted() {
        let text = "//! Doc.\n\nuse a;\n/* b\n /* c */ d */\nfn f() { // e\n    \"// {\\\"\" ; '{' ; '\\'';\n\
            \tr#\"a\nb\"#; x::<'a>()\n}\n#[cfg(test)]\nmod tests {\n    fn g() { '}' }\n}\nfn h() {}\n";
        // use, fn f, a literal's line, a raw literal's two, the brace, fn h.
        assert_eq!(code_lines("a.rs", text), 7);
        assert_eq!(code_lines("a.sh", "#!/bin/sh\n\n# b\necho c # d\n"), 1);
        assert_eq!(code_lines("a.c", "/* a\n * b */\nint c; /* d */\n// e\n"), 1);
        assert_eq!(code_lines("a.rs", "#[cfg(test)]\nmod tests;\n#[cfg(test)]\nfn a() {}\n"), 1);
    }

    #[test]
    fn patterns_match_whole_paths() {
        assert!(matches("boot/src/*", "boot/src/a/b.rs"));
        assert!(matches("*/a_*.rs", "x/y/a_b.rs"));
        assert!(!matches("boot/src/*.rs", "boot/src/a.s"));
        assert!(!matches("boot", "boot/src"));
    }

    #[test]
    fn rules_name_known_parts() {
        assert!(rules("# a\n\nboot  b/*\n").is_ok_and(|rules| rules == [("boot", "b/*")]));
        assert!(rules("attic b").is_err());
        assert!(rules("boot").is_err());
    }
}
