//! A browser: Chromium without a window, driven over WebDriver.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::LazyLock;
use std::time::Duration;

use fantoccini::actions::{InputSource, KeyAction, KeyActions, MouseActions, PointerAction};
use fantoccini::elements::Element;
use fantoccini::wd::{Capabilities, WebDriverCompatibleCommand};
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// The longest wait for anything on a page. It is long enough for a busy machine: an open page is read anew up to 90 s
/// later if the last reading was slow.
pub const DEADLINE: Duration = Duration::from_secs(240);

/// The checks of accessibility, which `.ci/browser` has fetched.
static AXE: LazyLock<String> = LazyLock::new(|| {
    let path = std::env::var("REVEILLE_AXE").expect("set REVEILLE_AXE to axe.min.js; .ci/browser does");
    fs::read_to_string(path).unwrap()
});

pub struct Browser {
    pub client: Client,
    /// The driver ends when this is dropped.
    _driver: Child,
    port: u16,
    folder: PathBuf,
}

/// What a browser is like.
#[derive(Debug, Clone, Copy, Default)]
pub struct Look {
    pub width: u32,
    pub is_dark: bool,
}

#[derive(Debug)]
struct DevTools(&'static str, Value);

impl WebDriverCompatibleCommand for DevTools {
    fn endpoint(&self, base: &url::Url, session: Option<&str>) -> Result<url::Url, url::ParseError> {
        base.join(&format!("session/{}/goog/cdp/execute", session.unwrap_or_default()))
    }

    fn method_and_body(&self, _: &url::Url) -> (http::Method, Option<String>) {
        (http::Method::POST, Some(json!({ "cmd": self.0, "params": self.1 }).to_string()))
    }
}

#[derive(Debug)]
struct Log;

impl WebDriverCompatibleCommand for Log {
    fn endpoint(&self, base: &url::Url, session: Option<&str>) -> Result<url::Url, url::ParseError> {
        base.join(&format!("session/{}/se/log", session.unwrap_or_default()))
    }

    fn method_and_body(&self, _: &url::Url) -> (http::Method, Option<String>) {
        (http::Method::POST, Some(json!({ "type": "browser" }).to_string()))
    }
}

impl Drop for Browser {
    /// Ends the browser's processes, which would outlive a killed driver.
    fn drop(&mut self) {
        let ended = TcpStream::connect(("127.0.0.1", self.port)).and_then(|mut driver| {
            driver.set_read_timeout(Some(DEADLINE))?;
            driver.write_all(b"GET /shutdown HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")?;
            driver.read_to_end(&mut Vec::new())
        });
        if let Err(error) = ended {
            eprintln!("the browser may still run: {error}");
        }
    }
}

impl Browser {
    pub async fn start() -> Browser {
        Browser::start_with(json!({})).await
    }

    /// A browser whose user has switched scripts off.
    pub async fn without_script() -> Browser {
        Browser::start_with(json!({ "profile.managed_default_content_settings.javascript": 2 })).await
    }

    async fn start_with(preferences: Value) -> Browser {
        let driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn();
        let mut driver = driver.expect("cannot start chromedriver; .ci/browser installs it");
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port: u16 = loop {
            let line = lines.next_line().await.unwrap().expect("chromedriver has ended");
            if let Some(port) = line.strip_prefix("ChromeDriver was started successfully on port ") {
                break port.trim_end_matches('.').parse().unwrap();
            }
        };
        let options = json!({
            "args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"],
            "prefs": preferences,
        });
        let capabilities = json!({ "goog:chromeOptions": options, "goog:loggingPrefs": { "browser": "ALL" } });
        let capabilities: Capabilities = serde_json::from_value(capabilities).unwrap();
        let client = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities)
            .connect(&format!("http://127.0.0.1:{port}"))
            .await
            .unwrap();
        let target = std::env::var_os("CARGO_TARGET_TMPDIR").map_or_else(std::env::temp_dir, PathBuf::from);
        let folder = std::env::var_os("REVEILLE_PICTURES").map_or_else(|| target.join("pictures"), PathBuf::from);
        fs::create_dir_all(&folder).unwrap();
        Browser { client, _driver: driver, port, folder }
    }

    pub async fn look(&self, look: Look) {
        let (width, mobile) = (look.width, look.width < 500);
        let metrics = json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": mobile });
        self.dev_tools("Emulation.setDeviceMetricsOverride", metrics).await;
        let scheme = if look.is_dark { "dark" } else { "light" };
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.dev_tools("Emulation.setEmulatedMedia", media).await;
    }

    async fn dev_tools(&self, command: &'static str, parameters: Value) {
        self.client.issue_cmd(DevTools(command, parameters)).await.unwrap();
    }

    pub async fn open(&self, address: &str) {
        self.client.goto(address).await.unwrap();
    }

    /// Waits for an element, and returns it.
    pub async fn find(&self, css: &str) -> Element {
        let found = self.client.wait().at_most(DEADLINE).for_element(Locator::Css(css)).await;
        match found {
            Ok(element) => element,
            Err(_) => panic!("no {css} on {}:\n{}", self.address().await, self.text().await),
        }
    }

    pub async fn has(&self, css: &str) -> bool {
        !self.client.find_all(Locator::Css(css)).await.unwrap().is_empty()
    }

    pub async fn address(&self) -> String {
        self.client.current_url().await.unwrap().to_string()
    }

    pub async fn text(&self) -> String {
        match self.client.find(Locator::Css("body")).await {
            Ok(body) => body.text().await.unwrap_or_default(),
            Err(_) => String::new(),
        }
    }

    /// Waits until the page shows a text.
    pub async fn wait_for(&self, text: &str) {
        let began = std::time::Instant::now();
        while !self.text().await.contains(text) {
            assert!(began.elapsed() < DEADLINE, "no {text:?} on {}:\n{}", self.address().await, self.text().await);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Clicks the button or link with this text.
    pub async fn click(&self, text: &str) {
        let path = format!("//main//*[self::button or self::a or self::summary][normalize-space()='{text}']");
        let found = self.client.wait().at_most(DEADLINE).for_element(Locator::XPath(&path)).await;
        match found {
            Ok(element) => element.click().await.unwrap(),
            Err(_) => panic!("no {text:?} to click on {}:\n{}", self.address().await, self.text().await),
        }
    }

    /// Moves the pointer over an element.
    pub async fn point_at(&self, css: &str) {
        let element = self.find(css).await;
        let over = PointerAction::MoveToElement { element, duration: None, x: 0.0, y: 0.0 };
        self.client.perform_actions(MouseActions::new("mouse".into()).then(over)).await.unwrap();
    }

    /// Writes into a field of a form, in place of what it has.
    pub async fn fill(&self, css: &str, text: &str) {
        let field = self.find(css).await;
        field.clear().await.unwrap();
        field.send_keys(text).await.unwrap();
    }

    /// Returns what is wrong with the page: it or one of its tables does not fit the width, the console has a message,
    /// or axe finds something.
    pub async fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let address = self.address().await;
        let width = "return [document.documentElement.scrollWidth, window.innerWidth]";
        let [needed, has]: [u32; 2] =
            serde_json::from_value(self.client.execute(width, Vec::new()).await.unwrap()).unwrap();
        if needed > has {
            faults.push(format!("{address} is {needed} px wide, in a window of {has}"));
        }
        let cut_off = "return [...document.querySelectorAll('.scroll:has(> table)')].filter((frame) => \
                       frame.scrollWidth > frame.clientWidth).map((frame) => frame.ariaLabel)";
        let cut_off = self.client.execute(cut_off, Vec::new()).await.unwrap();
        faults.extend(cut_off.as_array().into_iter().flatten().map(|table| format!("{address}: {table} is cut off")));
        let console = self.client.issue_cmd(Log).await.unwrap();
        let is_wrong = |message: &&Value| message["level"] != "DEBUG";
        let messages = console.as_array().into_iter().flatten().filter(is_wrong);
        faults.extend(messages.map(|message| format!("{address}: {message}")));
        self.client.execute(&AXE, Vec::new()).await.unwrap();
        let run = "const done = arguments[arguments.length - 1]; axe.run().then((found) => done(found.violations.map(\
                   (rule) => [rule.id, rule.help, rule.nodes.slice(0, 3).map((node) => node.html)])))";
        let found = self.client.execute_async(run, Vec::new()).await.unwrap();
        faults.extend(found.as_array().into_iter().flatten().map(|rule| format!("{address}: {rule:#}")));
        faults
    }

    /// Presses the Tab key until the focus has left the page, and returns what can be used and never had the focus.
    pub async fn unreached_by_tab(&self) -> Vec<String> {
        let usable = "window.usable = () => [...document.querySelectorAll('a[href], button, input, select, textarea, \
                      summary')].filter((element) => element.type !== 'hidden' && element.checkVisibility());\
                      window.reached = new Set(); return window.usable().length";
        let usable = self.client.execute(usable, Vec::new()).await.unwrap().as_u64().unwrap();
        let tab = "\u{e004}".chars().next().unwrap();
        // Frames of tables take the focus, too.
        for _ in 0..2 * usable + 20 {
            let keys = KeyActions::new("keys".into()).then(KeyAction::Down { value: tab });
            self.client.perform_actions(keys.then(KeyAction::Up { value: tab })).await.unwrap();
            let focused = "window.reached.add(document.activeElement); return document.activeElement === document.body";
            if self.client.execute(focused, Vec::new()).await.unwrap() == Value::Bool(true) {
                break;
            }
        }
        let missed = "return window.usable().filter((element) => !window.reached.has(element)).map((element) => \
                      element.outerHTML)";
        serde_json::from_value(self.client.execute(missed, Vec::new()).await.unwrap()).unwrap()
    }

    /// Keeps a picture of the whole page, for people to look at.
    pub async fn picture(&self, name: &str, look: Look) {
        let height = self.client.execute("return document.documentElement.scrollHeight", Vec::new()).await.unwrap();
        let height = height.as_u64().unwrap().clamp(600, 2_400);
        let metrics =
            json!({ "width": look.width, "height": height, "deviceScaleFactor": 1, "mobile": look.width < 500 });
        self.dev_tools("Emulation.setDeviceMetricsOverride", metrics).await;
        let picture = self.client.screenshot().await.unwrap();
        let scheme = if look.is_dark { "-dark" } else { "" };
        fs::write(self.folder.join(format!("{name}-{}{scheme}.png", look.width)), picture).unwrap();
    }
}
