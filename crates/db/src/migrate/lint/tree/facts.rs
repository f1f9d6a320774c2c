//! The parse tree as facts: which tables are made, changed and dropped, and which names are used.

use std::ops::Range;

use squawk_syntax::ast::{self, AstNode, NameLike as _};
use squawk_syntax::{SyntaxKind, SyntaxNode};

use super::columns::{self, Column, Constraint};

/// A name, decoded, with the schema that stands before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Name {
    pub(in super::super) schema: Option<String>,
    pub(in super::super) name: String,
    pub(in super::super) at: usize,
}

/// Something that a statement does.
#[derive(Debug, Clone)]
pub(in super::super) struct Fact {
    pub(in super::super) at: usize,
    pub(in super::super) what: What,
}

#[derive(Debug, Clone)]
pub(in super::super) enum What {
    /// `opaque`: made from another table or a query, so that its columns can't be seen.
    CreateTable {
        table: Name,
        columns: Vec<Column>,
        constraints: Vec<Constraint>,
        opaque: bool,
    },
    CreateView {
        view: Name,
    },
    CreateDomain {
        name: Name,
    },
    CreateIndex {
        table: Name,
        index: Option<Name>,
        columns: Vec<Option<String>>,
        predicate: Option<String>,
    },
    DropTable {
        tables: Vec<Name>,
    },
    DropIndex {
        indexes: Vec<Name>,
    },
    RenameTable {
        table: Name,
        to: String,
    },
    AddColumn {
        table: Name,
        column: Column,
    },
    DropColumn {
        table: Name,
        column: String,
    },
    RenameColumn {
        table: Name,
        column: String,
        to: String,
    },
    SetType {
        table: Name,
        column: String,
        ty: String,
    },
    SetNotNull {
        table: Name,
        column: String,
    },
    SetDefault {
        table: Name,
        column: String,
        default: String,
    },
    AddConstraint {
        table: Name,
        constraint: Constraint,
    },
    DropConstraint {
        table: Name,
        name: String,
    },
    ValidateConstraint {
        table: Name,
        name: String,
    },
    Truncate {
        tables: Vec<Name>,
    },
    Delete {
        table: Name,
        all: bool,
    },
    Update {
        table: Name,
        all: bool,
    },
}

impl What {
    /// The one table that it is about.
    pub(in super::super) fn table(&self) -> Option<&Name> {
        match self {
            Self::CreateTable { table, .. }
            | Self::CreateIndex { table, .. }
            | Self::RenameTable { table, .. }
            | Self::AddColumn { table, .. }
            | Self::DropColumn { table, .. }
            | Self::RenameColumn { table, .. }
            | Self::SetType { table, .. }
            | Self::SetNotNull { table, .. }
            | Self::SetDefault { table, .. }
            | Self::AddConstraint { table, .. }
            | Self::DropConstraint { table, .. }
            | Self::ValidateConstraint { table, .. }
            | Self::Delete { table, .. }
            | Self::Update { table, .. } => Some(table),
            Self::DropTable { tables } | Self::Truncate { tables } => tables.first(),
            Self::CreateView { .. } | Self::CreateDomain { .. } | Self::DropIndex { .. } => None,
        }
    }
}

/// Tokens without white space and quotes, in lower case: enough to compare expressions.
pub(super) fn plain(node: &SyntaxNode) -> String {
    let tokens =
        node.descendants_with_tokens().filter_map(squawk_syntax::SyntaxElement::into_token);
    tokens
        .filter(|t| !t.kind().is_trivia())
        .map(|t| t.text().to_lowercase().replace('"', ""))
        .collect()
}

/// Where the statements stand.
pub(super) fn statements(file: &ast::SourceFile) -> Vec<Range<usize>> {
    let range = |stmt: ast::Stmt| {
        let range = stmt.syntax().text_range();
        usize::from(range.start())..usize::from(range.end())
    };
    file.stmts().map(range).collect()
}

/// What the statements do, and what is done within a DO.
pub(super) fn facts(file: &ast::SourceFile) -> Vec<Fact> {
    let mut facts = Vec::new();
    let reader = Reader { place: &|node| usize::from(node.text_range().start()) };
    for node in file.syntax().descendants() {
        reader.statement(&node, &mut facts);
        if let Some(body) = ast::Do::cast(node).and_then(|block| block.plpgsql()) {
            let reader =
                Reader { place: &|node| usize::from(body.source_range(node.text_range()).start()) };
            for node in body.syntax().descendants() {
                reader.statement(&node, &mut facts);
            }
        }
    }
    facts
}

/// Reads nodes; a body's stand elsewhere in the file than in their own tree.
pub(super) struct Reader<'a> {
    pub(super) place: &'a dyn Fn(&SyntaxNode) -> usize,
}

impl Reader<'_> {
    pub(super) fn path_ref(&self, path: Option<ast::PathRef>) -> Option<Name> {
        let path = path?;
        let name = path.segment()?.text();
        Some(Name { schema: outermost(path.qualifier()), name, at: (self.place)(path.syntax()) })
    }

    fn path(&self, path: Option<ast::Path>) -> Option<Name> {
        let path = path?;
        let name = path.segment()?.text();
        Some(Name { schema: outermost(path.qualifier()), name, at: (self.place)(path.syntax()) })
    }

    pub(super) fn table(&self, table: Option<ast::TableNameRef>) -> Option<Name> {
        self.path_ref(table?.path_ref())
    }

    fn relation(&self, table: Option<ast::TableRelationName>) -> Option<Name> {
        self.table(table?.table_name_ref())
    }

    fn statement(&self, node: &SyntaxNode, facts: &mut Vec<Fact>) {
        let at = (self.place)(node);
        let made = match node.kind() {
            SyntaxKind::CREATE_TABLE
            | SyntaxKind::CREATE_FOREIGN_TABLE
            | SyntaxKind::CREATE_TABLE_AS
            | SyntaxKind::SELECT_INTO
            | SyntaxKind::CREATE_VIEW
            | SyntaxKind::CREATE_MATERIALIZED_VIEW
            | SyntaxKind::CREATE_DOMAIN
            | SyntaxKind::CREATE_INDEX => self.create(node),
            SyntaxKind::DROP_TABLE | SyntaxKind::DROP_INDEX | SyntaxKind::TRUNCATE => {
                self.drop(node)
            }
            SyntaxKind::DELETE | SyntaxKind::UPDATE if !in_function(node) => self.change_rows(node),
            SyntaxKind::ALTER_TABLE => {
                facts.extend(self.alter_table(node).into_iter().flatten());
                None
            }
            _ => None,
        };
        facts.extend(made.map(|what| Fact { at, what }));
    }

    fn create(&self, node: &SyntaxNode) -> Option<What> {
        let opaque = |table| What::CreateTable {
            table,
            columns: Vec::new(),
            constraints: Vec::new(),
            opaque: true,
        };
        if let Some(create) = ast::CreateTableLike::cast(node.clone()) {
            let table = self.path(create.table_name()?.path())?;
            return Some(self.create_table(node, table, create.table_arg_list()));
        }
        if let Some(create) = ast::CreateTableAs::cast(node.clone()) {
            return self.path(create.table_name()?.path()).map(opaque);
        }
        if let Some(select) = ast::SelectInto::cast(node.clone()) {
            return self.path(select.into_clause()?.table_name()?.path()).map(opaque);
        }
        if let Some(create) = ast::CreateViewLike::cast(node.clone()) {
            return Some(What::CreateView { view: self.path(create.view()?.path())? });
        }
        if let Some(create) = ast::CreateDomain::cast(node.clone()) {
            return Some(What::CreateDomain { name: self.path(create.domain()?.path())? });
        }
        let create = ast::CreateIndex::cast(node.clone())?;
        let items = create.partition_item_list()?.partition_items();
        Some(What::CreateIndex {
            table: self.relation(create.table_relation_name())?,
            index: create.index().and_then(|index| self.path(index.path())),
            columns: items.map(|item| columns::indexed(&item)).collect(),
            predicate: create.where_clause().and_then(|c| c.expr()).map(|e| plain(e.syntax())),
        })
    }

    fn create_table(
        &self,
        node: &SyntaxNode,
        table: Name,
        args: Option<ast::TableArgList>,
    ) -> What {
        let (mut columns, mut constraints) = (Vec::new(), Vec::new());
        let from_another = [SyntaxKind::INHERITS, SyntaxKind::PARTITION_OF, SyntaxKind::OF_TYPE];
        let mut opaque = node.children().any(|child| from_another.contains(&child.kind()));
        for arg in args.into_iter().flat_map(|args| args.args()) {
            match arg {
                ast::TableArg::Column(column) => columns.extend(self.column(&column)),
                ast::TableArg::LikeClause(_) => opaque = true,
                ast::TableArg::TableConstraint(constraint) => {
                    constraints.extend(self.constraint(constraint.syntax(), None));
                }
            }
        }
        What::CreateTable { table, columns, constraints, opaque }
    }

    fn drop(&self, node: &SyntaxNode) -> Option<What> {
        if let Some(drop) = ast::DropTable::cast(node.clone()) {
            let tables = drop.table_name_refs().filter_map(|table| self.table(Some(table)));
            return Some(What::DropTable { tables: tables.collect() });
        }
        if let Some(drop) = ast::DropIndex::cast(node.clone()) {
            let indexes = drop.index_refs().filter_map(|index| self.path_ref(index.path_ref()));
            return Some(What::DropIndex { indexes: indexes.collect() });
        }
        let tables = ast::Truncate::cast(node.clone())?.table_list()?.table_relation_names();
        Some(What::Truncate { tables: tables.filter_map(|t| self.relation(Some(t))).collect() })
    }

    fn change_rows(&self, node: &SyntaxNode) -> Option<What> {
        let named = node.children().find_map(ast::RelationName::cast)?;
        let table = self.path_ref(named.relation_name_ref()?.path_ref())?;
        let condition = node.children().find_map(ast::WhereClauseOrCurrentOf::cast);
        let all = condition.is_none_or(|c| plain(c.syntax()) == "wheretrue");
        Some(match node.kind() {
            SyntaxKind::DELETE => {
                // Another table in USING picks the rows, if a condition joins it.
                What::Delete { table, all }
            }
            _ => What::Update { table, all },
        })
    }

    fn alter_table(&self, node: &SyntaxNode) -> Option<Vec<Fact>> {
        let alter = ast::AlterTable::cast(node.clone())?;
        let table = self.relation(alter.table_relation_name())?;
        let fact = |action: ast::AlterTableAction| {
            let at = (self.place)(action.syntax());
            self.action(table.clone(), action).map(|what| Fact { at, what })
        };
        Some(alter.actions().filter_map(fact).collect())
    }

    fn action(&self, table: Name, action: ast::AlterTableAction) -> Option<What> {
        use ast::AlterTableAction as A;
        Some(match action {
            A::TableRenameTo(to) => {
                What::RenameTable { table, to: self.path(to.table_name()?.path())?.name }
            }
            A::RenameColumn(rename) => What::RenameColumn {
                table,
                column: rename.column_name_ref()?.text(),
                to: rename.column_name()?.text(),
            },
            A::AddColumn(add) => What::AddColumn { table, column: self.added_column(&add)? },
            A::DropColumn(drop) => {
                What::DropColumn { table, column: drop.column_name_ref()?.text() }
            }
            A::AddConstraint(add) => What::AddConstraint {
                table,
                constraint: self.constraint(add.constraint()?.syntax(), None)?,
            },
            A::DropConstraint(drop) => {
                let name = drop.constraint_name_ref()?;
                What::DropConstraint { table, name: self.path_ref(name.path_ref())?.name }
            }
            A::ValidateConstraint(validate) => {
                let name = validate.constraint_name_ref()?;
                What::ValidateConstraint { table, name: self.path_ref(name.path_ref())?.name }
            }
            A::AlterColumn(alter) => {
                let column = alter.column_name_ref()?.text();
                match alter.option()? {
                    ast::AlterColumnOption::SetType(set) => {
                        What::SetType { table, column, ty: plain(set.ty()?.syntax()) }
                    }
                    ast::AlterColumnOption::SetNotNull(_) => What::SetNotNull { table, column },
                    ast::AlterColumnOption::SetDefault(set) => {
                        let default = plain(set.expr()?.syntax());
                        What::SetDefault { table, column, default }
                    }
                    _ => return None,
                }
            }
            _ => return None,
        })
    }
}

/// Of `database.schema.name` the database: that is already too much.
fn outermost(path: Option<ast::PathRef>) -> Option<String> {
    let mut path = path?;
    while let Some(outer) = path.qualifier() {
        path = outer;
    }
    Some(path.segment()?.text())
}

/// What a function does happens when it is called.
fn in_function(node: &SyntaxNode) -> bool {
    let routine = |kind| matches!(kind, SyntaxKind::CREATE_FUNCTION | SyntaxKind::CREATE_PROCEDURE);
    node.ancestors().any(|ancestor| routine(ancestor.kind()))
}
