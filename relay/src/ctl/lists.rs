//! What comes in pages or pieces: JSON as it comes, a table when all of it is there.

use relay_grpc::control::v1 as proto;

use super::arguments::FilterArguments;
use super::{Client, Failed, Show, credentials, histograms, report};

pub(super) async fn scopes(
    mut client: Client,
    show: Show,
    workspace: Option<String>,
) -> Result<(), Failed> {
    let mut request = proto::ListScopesRequest {
        workspace_id: workspace.unwrap_or_default(),
        page_size: PAGE_SIZE,
        page_token: String::new(),
    };
    let mut all = Vec::new();
    loop {
        let page = client.list_scopes(request.clone()).await?.into_inner();
        show.each(page.scopes, &mut all);
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    show.table(|| report::scopes(&all));
    Ok(())
}

pub(super) async fn connections(
    mut client: Client,
    show: Show,
    arguments: &FilterArguments,
) -> Result<(), Failed> {
    let mut request = proto::ListConnectionsRequest {
        filter: Some(filter(arguments)),
        page_size: PAGE_SIZE,
        page_token: String::new(),
    };
    let mut all = Vec::new();
    loop {
        let page = client.list_connections(request.clone()).await?.into_inner();
        show.each(page.connections, &mut all);
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    show.table(|| report::connections(&all));
    Ok(())
}

pub(super) async fn revocations(mut client: Client, show: Show) -> Result<(), Failed> {
    let mut request =
        proto::ListRevocationsRequest { page_size: PAGE_SIZE, page_token: String::new() };
    let mut all = Vec::new();
    loop {
        let page = client.list_revocations(request.clone()).await?.into_inner();
        show.each(page.revocations, &mut all);
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    show.table(|| credentials::revocations(&all));
    Ok(())
}

pub(super) async fn histograms(
    mut client: Client,
    show: Show,
    request: proto::GetHistogramsRequest,
) -> Result<(), Failed> {
    let with_hdr_log = request.with_hdr_log;
    let mut messages = client.get_histograms(request).await?.into_inner();
    let mut all = Vec::new();
    while let Some(of_shard) = messages.message().await? {
        show.each(vec![of_shard], &mut all);
    }
    show.table(|| match with_hdr_log {
        true => histograms::hdr_log(&all),
        false => histograms::table(&all),
    });
    Ok(())
}

pub(super) fn filter(arguments: &FilterArguments) -> proto::ConnectionFilter {
    let given = |text: &Option<String>| text.clone().unwrap_or_default();
    proto::ConnectionFilter {
        workspace_id: given(&arguments.workspace),
        target_id: given(&arguments.target),
        client_id: given(&arguments.client),
        token_id: given(&arguments.token_id),
        subject: given(&arguments.subject),
        key_id: given(&arguments.key_id),
        address: given(&arguments.ip),
    }
}

/// Things asked for at once.
const PAGE_SIZE: u32 = 1000;
