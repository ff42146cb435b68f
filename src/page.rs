//! The look of our own pages, whichever listener shows them. They load nothing, run nothing, and hold
//! what other people wrote only as text.

use crate::error::printable;

/// How things stand, in the picture.
#[derive(Clone, Copy)]
pub(crate) enum Lamp {
    On,
    Off,
}

/// A page that stays. `title` is ours, `content` is HTML.
pub(crate) fn html(lamp: Lamp, title: &str, content: &str) -> String {
    layout(lamp, title, "", content)
}

/// A page that goes on by itself after so many seconds, to this path or, without one, to itself.
pub(crate) fn html_that_goes_on(lamp: Lamp, title: &str, seconds: u32, to: Option<&str>, content: &str) -> String {
    let to = to.map(|to| format!("; url={}", escaped(to))).unwrap_or_default();
    layout(lamp, title, &format!("<meta http-equiv=\"refresh\" content=\"{seconds}{to}\">\n"), content)
}

/// Lines of others under a heading of ours; nothing without lines.
pub(crate) fn list(title: &str, lines: &[String]) -> String {
    match lines {
        [] => String::new(),
        lines => {
            let lines: Vec<String> = lines.iter().map(|line| text(line)).collect();
            format!("<h2>{title}</h2><ul><li>{}</li></ul>", lines.join("</li><li>"))
        }
    }
}

fn layout(lamp: Lamp, title: &str, head: &str, content: &str) -> String {
    let (class, beams) = match lamp {
        Lamp::On => ("on", BEAMS),
        Lamp::Off => ("off", CROSS),
    };
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n{head}\
         <title>{title} · kubectl headlamp</title>\n<link rel=\"icon\" href=\"data:,\">\n<style>{STYLE}</style>\n</head>\n\
         <body>\n<main class=\"{class}\">\n\
         <svg viewBox=\"4 2 44 44\" width=\"48\" height=\"48\" aria-hidden=\"true\">{LENS}{beams}</svg>\n\
         <h1>{title}</h1>\n{content}\n</main>\n<footer>kubectl headlamp</footer>\n</body>\n</html>\n"
    )
}

/// Text of others as HTML text: on one line, without characters that reorder their neighbours, and
/// what stands in backticks as code.
pub(crate) fn text(plain: &str) -> String {
    let plain = printable(plain);
    let parts: Vec<String> = plain.split('`').map(escaped).collect();
    if parts.len().is_multiple_of(2) {
        return parts.join("`");
    }
    let marked = parts
        .into_iter()
        .enumerate()
        .map(|(index, part)| if index % 2 == 1 { format!("<code>{part}</code>") } else { part });
    marked.collect()
}

/// Text within HTML, attributes too.
pub(crate) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

const LENS: &str = "<path d=\"M22 8C11 8 4 14.6 4 24s7 16 18 16c3.4 0 5-7 5-16S25.4 8 22 8z\"/>";
const BEAMS: &str = "<path class=\"line\" d=\"M33 13.5 43 10M33.5 24H45M33 34.5 43 38\"/>";
const CROSS: &str = "<path class=\"line\" d=\"M34 18.5 45 29.5M45 18.5 34 29.5\"/>";

pub(crate) const STYLE: &str = "
:root {
  --page: #f4f5f7; --card: #fff; --edge: #dfe2e8; --text: #1b2029; --soft: #565e6c; --code: #eef0f4;
  --on: #d97706; --off: #b3261e;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #101318; --card: #191d25; --edge: #2c323d; --text: #e7eaf0; --soft: #a3abb9; --code: #262c37;
    --on: #fbbf24; --off: #f2938c;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; min-height: 100vh; padding: 1.5rem; display: flex; flex-direction: column; align-items: center; justify-content: center;
  background: var(--page); color: var(--text);
  font: 1rem/1.55 system-ui, -apple-system, \"Segoe UI\", Roboto, \"Noto Sans\", sans-serif; overflow-wrap: anywhere;
}
main {
  width: 100%; max-width: 36rem; padding: 2.25rem 2.5rem; background: var(--card);
  border: 1px solid var(--edge); border-radius: 1rem; box-shadow: 0 1px 2px #0000000d, 0 12px 32px #0000000f;
}
.on { --mark: var(--on); }
.off { --mark: var(--off); }
svg { display: block; fill: var(--mark); }
.line { fill: none; stroke: var(--mark); stroke-width: 3.5; stroke-linecap: round; }
h1 { margin: .75rem 0 1rem; font-size: 1.6rem; line-height: 1.25; font-weight: 650; letter-spacing: -.01em; }
h2 { margin: 1.5rem 0 .4rem; font-size: .95rem; font-weight: 650; }
p { margin: 1.25rem 0 0; color: var(--soft); }
.lead { margin: 0; color: var(--text); font-size: 1.05rem; }
ul { margin: 0; padding-left: 1.2rem; }
.lead::first-letter, li::first-letter { text-transform: uppercase; }
li + li { margin-top: .3rem; }
dl { margin: 0; border-top: 1px solid var(--edge); }
dl div { display: flex; flex-wrap: wrap; gap: .1rem 1.25rem; padding: .7rem 0; border-bottom: 1px solid var(--edge); }
dt { flex: 0 0 7rem; color: var(--soft); }
dd { flex: 1 1 14rem; margin: 0; font-weight: 550; }
code {
  display: inline-block; max-width: 100%;
  padding: 0 .35em; border-radius: .3em; background: var(--code);
  font: .9em/1.4 ui-monospace, SFMono-Regular, Menlo, Consolas, \"Liberation Mono\", monospace;
}
a { color: inherit; }
button {
  margin: 1.5rem 0 0; padding: .6rem 1.4rem; border: 0; border-radius: .5rem; cursor: pointer;
  background: var(--text); color: var(--card); font: inherit; font-weight: 600;
}
a:focus-visible, button:focus-visible { outline: 3px solid var(--on); outline-offset: 3px; }
footer { margin-top: 1.25rem; color: var(--soft); font-size: .85rem; }
@media (max-width: 30rem) { main { padding: 1.5rem; } }
";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_page_goes_on_to_where_it_is_told() {
        let to = html_that_goes_on(Lamp::On, "t", 0, Some("/a?b=c&d='\""), "");
        assert!(to.contains("<meta http-equiv=\"refresh\" content=\"0; url=/a?b=c&amp;d=&#39;&quot;\">"), "{to}");
        let itself = html_that_goes_on(Lamp::On, "t", 2, None, "");
        assert!(itself.contains("<meta http-equiv=\"refresh\" content=\"2\">"), "{itself}");
        assert!(!html(Lamp::On, "t", "").contains("refresh"));
    }

    proptest! {
        #[test]
        fn no_text_of_others_becomes_markup(plain in any::<String>()) {
            let shown = text(&plain).replace("<code>", "").replace("</code>", "");
            prop_assert!(!shown.contains(['<', '>', '"', '\'']), "{}", shown);
        }
    }
}
