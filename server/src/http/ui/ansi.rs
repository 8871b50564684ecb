//! Build output to HTML: SGR colours become classes, everything else that a terminal would obey is dropped, text is escaped.
//! Not here: masking of secrets, which happens before a line is stored.

use super::markup::Markup;

/// The longest run of parameter bytes that is read of one escape sequence; a longer one is dropped whole.
const PARAMETERS_MAX_BYTES: usize = 64;

/// A colour of the eight that the stylesheet knows (`a31` to `a36`); black and white are the ground's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Hue {
    Red,
    Green,
    Yellow,
    Blue,
    Magenta,
    Cyan,
}

impl Hue {
    const fn class(self) -> &'static str {
        match self {
            Self::Red => "a31",
            Self::Green => "a32",
            Self::Yellow => "a33",
            Self::Blue => "a34",
            Self::Magenta => "a35",
            Self::Cyan => "a36",
        }
    }

    const fn of_digit(digit: u16) -> Option<Self> {
        match digit {
            1 => Some(Self::Red),
            2 => Some(Self::Green),
            3 => Some(Self::Yellow),
            4 => Some(Self::Blue),
            5 => Some(Self::Magenta),
            6 => Some(Self::Cyan),
            _ => None,
        }
    }

    /// The nearest of the six; none for greys.
    fn of_rgb(r: u16, g: u16, b: u16) -> Option<Self> {
        let (low, high) = (r.min(g).min(b), r.max(g).max(b));
        let span = high.saturating_sub(low);
        if span < 48 {
            return None;
        }
        let strong = |channel: u16| channel.saturating_sub(low) * 2 > span;
        match (strong(r), strong(g), strong(b)) {
            (true, false, false) => Some(Self::Red),
            (false, true, false) => Some(Self::Green),
            (true, true, false) => Some(Self::Yellow),
            (false, false, true) => Some(Self::Blue),
            (true, false, true) => Some(Self::Magenta),
            (false, true, true) => Some(Self::Cyan),
            _ => None,
        }
    }

    /// The palette of 256: eight and eight named ones, a cube of 6 × 6 × 6, a ramp of greys (xterm's control sequences).
    fn of_palette(n: u16) -> Option<Self> {
        match n {
            0..=15 => Self::of_digit(n % 8),
            16..=231 => {
                let n = n - 16;
                Self::of_rgb(n / 36 * 51, n / 6 % 6 * 51, n % 6 * 51)
            }
            _ => None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Pen {
    hue: Option<Hue>,
    ground: Option<Hue>,
    inverse: bool,
    bold: bool,
    faint: bool,
    underline: bool,
}

impl Pen {
    fn is_plain(self) -> bool {
        self == Self::default()
    }

    fn obey(&mut self, parameters: &str) {
        let mut codes = parameters.split([';', ':']).map(|code| code.parse::<u16>().unwrap_or(0));
        while let Some(code) = codes.next() {
            match code {
                0 => *self = Self::default(),
                1 => self.bold = true,
                2 => self.faint = true,
                4 => self.underline = true,
                7 => self.inverse = true,
                22 => (self.bold, self.faint) = (false, false),
                24 => self.underline = false,
                27 => self.inverse = false,
                30..=37 => {
                    self.hue = Hue::of_digit(code - 30);
                }
                38 => self.hue = extended(&mut codes),
                39 => self.hue = None,
                40..=47 => self.ground = Hue::of_digit(code - 40),
                48 => self.ground = extended(&mut codes),
                49 => self.ground = None,
                90 => self.faint = true,
                91..=97 => self.hue = Hue::of_digit(code - 90),
                100..=107 => self.ground = Hue::of_digit(code - 100),
                _ => {}
            }
        }
    }

    fn open(self, out: &mut Markup) {
        out.raw("<i class=\"");
        let inverse = self.inverse || self.ground.is_some();
        let hue = if inverse { self.ground.or(self.hue) } else { self.hue };
        let mut first = true;
        let mut class = |out: &mut Markup, name: &'static str| {
            if !std::mem::take(&mut first) {
                out.raw(" ");
            }
            out.raw(name);
        };
        if let Some(hue) = hue {
            class(out, hue.class());
        }
        if inverse {
            class(out, "inv");
        } else if self.faint {
            class(out, "dim");
        }
        if self.bold {
            class(out, "a1");
        }
        if self.underline {
            class(out, "a4");
        }
        out.raw("\">");
    }
}

fn extended(codes: &mut impl Iterator<Item = u16>) -> Option<Hue> {
    match codes.next()? {
        5 => Hue::of_palette(codes.next()?),
        2 => {
            let (r, g, b) = (codes.next()?, codes.next()?, codes.next()?);
            Hue::of_rgb(r.min(255), g.min(255), b.min(255))
        }
        _ => None,
    }
}

/// Paints the lines of one log in their order; a colour that one line leaves on holds in the next.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Painter {
    pen: Pen,
}

impl Painter {
    /// A painter with no colour on.
    pub fn new() -> Self {
        Self::default()
    }

    /// One line, without its end. Of text that a carriage return would write over, only the last stays.
    pub fn line(&mut self, line: &str) -> Markup {
        let mut out = Markup::default();
        let mut open = false;
        let mut chars = last_overwrite(line).chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '\u{1b}' => match chars.next() {
                    Some('[') => {
                        let mut parameters = String::new();
                        let end = loop {
                            match chars.next() {
                                Some(c @ ' '..='?') => parameters.push(c),
                                end => break end,
                            }
                        };
                        if end == Some('m') && parameters.len() <= PARAMETERS_MAX_BYTES {
                            if std::mem::take(&mut open) {
                                out.raw("</i>");
                            }
                            self.pen.obey(&parameters);
                        }
                    }
                    // Operating system, device, privacy and application strings, up to BEL or ST.
                    Some(']' | 'P' | '^' | '_' | 'X') => {
                        while let Some(c) = chars.next() {
                            if c == '\u{7}' || c == '\u{9c}' {
                                break;
                            }
                            if c == '\u{1b}' {
                                chars.next_if_eq(&'\\');
                                break;
                            }
                        }
                    }
                    // Charset designations have one more byte.
                    Some(' ' | '(' | ')' | '*' | '+' | '#' | '%') => {
                        chars.next();
                    }
                    _ => {}
                },
                '\t' => self.put(&mut out, &mut open, '\t'),
                c if is_obeyed(c) => {}
                c => self.put(&mut out, &mut open, c),
            }
        }
        if open {
            out.raw("</i>");
        }
        out
    }

    fn put(&self, out: &mut Markup, open: &mut bool, c: char) {
        if !*open && !self.pen.is_plain() {
            self.pen.open(out);
            *open = true;
        }
        out.char(c);
    }
}

/// What stands after the last carriage return that something follows, as on a terminal whose line was rewritten.
fn last_overwrite(line: &str) -> &str {
    let line = line.trim_end_matches(['\r', '\n']);
    line.rsplit('\r').next().unwrap_or(line)
}

/// Control characters, and the marks that turn the direction of text and so hide what it says.
fn is_obeyed(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn paint(line: &str) -> String {
        Painter::new().line(line).to_string()
    }

    #[test]
    fn colours_become_classes_and_text_is_escaped() {
        assert_eq!(paint("\u{1b}[31mFAIL\u{1b}[0m <b>&"), "<i class=\"a31\">FAIL</i> &lt;b&gt;&amp;");
        assert_eq!(paint("\u{1b}[1;32mok\u{1b}[22m on"), "<i class=\"a32 a1\">ok</i><i class=\"a32\"> on</i>");
        assert_eq!(paint("\u{1b}[41m x \u{1b}[m"), "<i class=\"a31 inv\"> x </i>");
        assert_eq!(paint("\u{1b}[7;33mx"), "<i class=\"a33 inv\">x</i>");
        assert_eq!(paint("\u{1b}[90mgrey\u{1b}[0m"), "<i class=\"dim\">grey</i>");
        assert_eq!(paint("\u{1b}[38;5;196mr\u{1b}[38;2;10;200;20mg"), "<i class=\"a31\">r</i><i class=\"a32\">g</i>");
    }

    #[test]
    fn what_a_terminal_obeys_is_dropped() {
        assert_eq!(paint("\u{1b}]8;;https://evil.example\u{7}click\u{1b}]8;;\u{1b}\\!"), "click!");
        assert_eq!(paint("a\u{1b}[2K\u{1b}[1Gb\u{7}\u{8}c"), "abc");
        assert_eq!(paint("10 %\r20 %\r30 %\r"), "30 %");
        assert_eq!(paint("a\u{202e}b\u{2066}c"), "abc");
        assert_eq!(paint("\u{1b}[31"), "");
        assert_eq!(paint("\u{1b}(Bx"), "x");
    }

    #[test]
    fn a_colour_left_on_holds_in_the_next_line() {
        let mut painter = Painter::new();
        assert_eq!(painter.line("\u{1b}[31mone").as_str(), "<i class=\"a31\">one</i>");
        assert_eq!(painter.line("two\u{1b}[0m").as_str(), "<i class=\"a31\">two</i>");
        assert_eq!(painter.line("three").as_str(), "three");
    }

    /// Takes our tags out and the escapes back; panics at any other tag.
    fn read_back(html: &str) -> String {
        let mut text = String::new();
        let mut rest = html;
        let mut depth = 0_i32;
        while let Some(at) = rest.find('<') {
            text.push_str(&rest[..at]);
            rest = &rest[at..];
            if let Some(after) = rest.strip_prefix("</i>") {
                depth -= 1;
                rest = after;
            } else {
                let after = rest.strip_prefix("<i class=\"").expect("only our own tag");
                let (class, after) = after.split_once("\">").expect("a closed tag");
                assert!(class.chars().all(|c| c.is_ascii_alphanumeric() || c == ' '), "class {class:?}");
                depth += 1;
                rest = after;
            }
            assert!((0..=1).contains(&depth), "nested or unbalanced: {html}");
        }
        assert_eq!(depth, 0, "unbalanced: {html}");
        text.push_str(rest);
        text.replace("&lt;", "<")
            .replace("&gt;", ">")
            .replace("&quot;", "\"")
            .replace("&#39;", "'")
            .replace("&amp;", "&")
    }

    proptest! {
        #[test]
        fn any_bytes_paint_to_balanced_escaped_markup(line in "\\PC*|([\\x00-\\x7f]|\u{1b}\\[[0-9;]{0,9}[a-zA-Z])*") {
            let text = read_back(&paint(&line));
            prop_assert!(!text.chars().any(|c| c.is_control() && c != '\t'));
        }

        #[test]
        fn text_without_escapes_comes_through_whole(line in "[ -~\u{4e00}-\u{4e2f}]*") {
            prop_assert_eq!(read_back(&paint(&line)), line);
        }

        #[test]
        fn colours_take_no_text_away(words in proptest::collection::vec(("[ -~]{0,8}", 0_u16..110), 0..12)) {
            let line: String = words.iter().map(|(word, code)| format!("\u{1b}[{code}m{word}")).collect();
            let plain: String = words.iter().map(|(word, _)| word.as_str()).collect();
            prop_assert_eq!(read_back(&paint(&line)), plain);
        }
    }

    #[test]
    fn fuzz_ansi() {
        let samples: [&[u8]; 4] = [
            b"\x1b[1;31mFAIL\x1b[0m <b>&",
            b"10 %\r20 %\r\x1b[38;5;196mdone",
            b"\x1b]8;;https://x\x07link\x1b]8;;\x07",
            "\u{202e}evil \u{1b}[38;2;10;200;20mg".as_bytes(),
        ];
        let words =
            ["\u{1b}[", "\u{1b}]", "m", ";", "38;5;", "48;2;", "\u{7}", "<script>", "&lt;", "\"", "\u{9c}", "\r"];
        fuzz::feed("ansi", &samples, &words, |bytes| {
            let text = String::from_utf8_lossy(bytes);
            let mut painter = Painter::new();
            let mut shape = String::new();
            for line in text.split('\n') {
                let html = painter.line(line).to_string();
                let (mut rest, mut open) = (html.as_str(), false);
                while let Some(at) = rest.find('<') {
                    let tag = &rest[at..=at + rest[at..].find('>').ok_or("a tag has no end")?];
                    let is_pen =
                        |class: &str| class.split(' ').all(|word| word.chars().all(|c| c.is_ascii_alphanumeric()));
                    let class = tag.strip_prefix("<i class=\"").and_then(|tag| tag.strip_suffix("\">"));
                    match (tag, class) {
                        ("</i>", _) if open => open = false,
                        (_, Some(class)) if !open && is_pen(class) => open = true,
                        _ => return Err(format!("{tag} is in the page")),
                    }
                    rest = &rest[at + tag.len()..];
                }
                if open || html.contains("\u{1b}") || html.chars().any(is_obeyed_but_tab) {
                    return Err(format!("{html:?} is not whole"));
                }
                // A byte becomes six where it is escaped; `ESC[4m` and a letter become a tag with its end. One pen more
                // may come from the line before.
                if html.len() > 8 * line.len() + 64 {
                    return Err(format!("{} bytes became {}", line.len(), html.len()));
                }
                if let Some(at) = html.find("class=\"") {
                    shape.extend(html[at..].chars().take(16));
                }
            }
            Ok(shape.chars().take(48).collect())
        });
    }

    fn is_obeyed_but_tab(c: char) -> bool {
        c != '\t' && is_obeyed(c)
    }
}
